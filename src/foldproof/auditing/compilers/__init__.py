"""The compilers that can be audited, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from foldproof.auditing.compilers.compiler import Compiled, Compiler
from foldproof.auditing.compilers.executorch import Executorch
from foldproof.auditing.compilers.export import Export
from foldproof.auditing.compilers.fuse import Fuse
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.compilers.onnx import Onnx
from foldproof.auditing.compilers.openvino import Openvino
from foldproof.auditing.compilers.torchao import Torchao
from foldproof.compilers import FX, TORCH_AO
from foldproof.errors import FoldproofError

__all__ = ["COMPILERS", "Compiled", "Compiler", "compiler_named"]

_ALL: tuple[Compiler, ...] = (
    Inductor(),
    Export(),
    Torchao(),
    Executorch(),
    Fuse(FX, "torch.fx.experimental.optimization", "fuse"),
    Fuse(TORCH_AO, "torch.ao.quantization.quantize_fx", "fuse_fx"),
    Onnx(),
    Openvino(),
)

COMPILERS: Mapping[str, Compiler] = {compiler.declared.name: compiler for compiler in _ALL}


def compiler_named(name: str) -> Compiler:
    """
    Raises:
        FoldproofError: there is none of that name.
    """
    if name not in COMPILERS:
        raise FoldproofError(f"compiler must be one of {', '.join(COMPILERS)}, not {name!r}")
    return COMPILERS[name]
