"""Recognition of the forms of programs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.program.exported import ExportedProgramForm
from foldproof.program.modules import FunctionProgram, GraphProgram, ModuleProgram
from foldproof.program.program import Program
from foldproof.program.state import require_shape
from foldproof.program.weightless import Values, has_values
from foldproof.torch_internals import is_compiled


def as_program(source: Any, values: Values | None = None) -> Program:
    """Return the program behind an ExportedProgram, nn.Module (GraphModules too), or callable.

    ``values`` draws those of parameters that have none; without it, they are refused.

    Raises:
        FoldproofError: ``source`` is none of them, or is compiled, or holds tensors without residues.
    """
    if _is_compiled(source):
        raise FoldproofError(
            "a compiled program has no graph, so nothing can be proved about it; give the model itself, or"
            " its torch.export program"
        )
    program = _form(source)
    if values is not None:
        program.leaves = values.leaves(program.leaves)
    for name, leaf in program.leaves.items():
        require_ordinary(name, leaf.tensor)
    return program


def _form(source: Any) -> Program:
    if isinstance(source, ExportedProgram):
        return ExportedProgramForm(source)
    if isinstance(source, fx.GraphModule):
        return GraphProgram(source)
    if isinstance(source, nn.Module):
        return ModuleProgram(source)
    if callable(source):
        return FunctionProgram(source)
    raise FoldproofError(
        f"cannot read a {type(source).__name__} as a program; give an nn.Module, a GraphModule, an ExportedProgram or"
        " a callable"
    )


def _is_compiled(source: Any) -> bool:
    modules = source.modules() if isinstance(source, nn.Module) else [source]
    return any(map(is_compiled, modules))


def require_ordinary(name: str, tensor: Tensor) -> None:
    """Refuse tensors that proofs cannot compute with.

    Raises:
        FoldproofError: ``tensor`` has no values, is not dense, or is on a device without float64.
    """
    require_shape(name, tensor)
    if tensor.is_nested:
        what = "is a nested tensor"
    elif tensor.is_quantized:
        what = "is a quantized tensor"
    elif not has_values(tensor):
        what = "is on the meta device or a fake tensor, and has no values"
    elif tensor.layout != torch.strided:
        what = f"has the layout {tensor.layout}"
    elif not _has_float64(tensor.device):
        raise FoldproofError(
            f"{name} is on {tensor.device}, which has no float64, in which proofs and comparisons compute; move the"
            " program and its inputs to the CPU"
        )
    else:
        return
    raise FoldproofError(f"{name} {what}, so a proof can't compute with it; give an ordinary dense tensor")


@functools.cache
def _has_float64(device: torch.device) -> bool:
    """Return False for devices such as MPS."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError) as error:
        log_caught(error, f"making a float64 tensor on {device}")
        return False
    return True
