"""The compilers that `audit` knows, as data for the command line, `foldproof doctor` and a table of the documentation.

`foldproof.auditing.compilers` runs them; this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from foldproof.errors import FoldproofError


@dataclass(frozen=True)
class Declaration:
    """A compiler.

    ``runner`` locates its `Compiler` (``module:variable`` in `foldproof.auditing.compilers`). ``watches`` describes the
    audited passes, and ``options`` each option, both in Markdown; an option named "…" stands for any name.
    ``packages`` are its requirements besides torch, and ``extra`` is foldproof's extra that installs them. ``builds``
    is True if it needs a C++ compiler.
    """

    name: str
    runner: str
    watches: str
    options: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    extra: str | None = None
    builds: bool = False


INDUCTOR = Declaration(
    "inductor",
    "inductor:COMPILER",
    "every graph pass of `torch.compile`, from Dynamo's graph to the loops that kernels are made of",
    {"…": "any setting of `torch._inductor.config`, such as `freezing=True`"},
    builds=True,
)
AOTINDUCTOR = Declaration(
    "aotinductor",
    "aotinductor:COMPILER",
    "the same of `torch._inductor.aoti_compile_and_package`; the package runs",
    {"…": "any setting of `torch._inductor.config`, such as `freezing=True`"},
    builds=True,
)
EXPORT = Declaration(
    "export",
    "export:COMPILER",
    "`torch.export.export` and its decompositions into core ATen operators; the exported program runs",
)
TORCHAO = Declaration(
    "torchao",
    "torchao:COMPILER",
    "every step of `prepare_pt2e`, `prepare_qat_pt2e`, `convert_pt2e`",
    {
        "quantizer": "`x86` (default), `xnnpack`, `none`, or in Python a Quantizer",
        "qat": "`True` for `prepare_qat_pt2e`",
    },
    ("torchao",),
    "torchao",
)
EXECUTORCH = Declaration(
    "executorch",
    "executorch:COMPILER",
    "every pass of `to_edge_transform_and_lower`, XNNPACK, `to_executorch`; the `.pte` runs in the runtime",
    {"partitioner": "`xnnpack` (default), `none`, or in Python a list of partitioners"},
    ("executorch",),
    "executorch",
)
FX = Declaration("fx", "fuse:FX_FUSE", "`torch.fx.experimental.optimization.fuse`")
TORCH_AO = Declaration("torch.ao", "fuse:TORCH_AO_FUSE", "`torch.ao.quantization.quantize_fx.fuse_fx`")
ONNX = Declaration(
    "onnx",
    "onnx:COMPILER",
    "`torch.onnx.export`: PyTorch's graph, the translation, onnxscript's passes, and ONNX Runtime's optimizations",
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
)
OPENVINO = Declaration(
    "openvino",
    "openvino:COMPILER",
    "the conversion to OpenVINO, its transformations for all devices, and those of the plugin; the model runs there",
    packages=("openvino",),
    extra="openvino",
)

DECLARED: Mapping[str, Declaration] = {
    one.name: one for one in (INDUCTOR, AOTINDUCTOR, EXPORT, TORCHAO, EXECUTORCH, FX, TORCH_AO, ONNX, OPENVINO)
}


def check_compiler(name: str) -> None:
    """Check that there is a compiler of this name.

    Raises:
        FoldproofError: there is none.
    """
    if name not in DECLARED:
        raise FoldproofError(f"compiler must be one of {', '.join(DECLARED)}, not {name!r}")
