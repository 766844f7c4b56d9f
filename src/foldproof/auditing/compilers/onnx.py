"""ONNX: `torch.onnx.export`, with onnxscript's optimizer, and ONNX Runtime."""

from __future__ import annotations

from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, require_known_options
from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.auditing.taps.onnx import OnnxTap
from foldproof.compiler_catalog import ONNX
from foldproof.errors import MissingExtra
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied
from foldproof.torch_internals import tree_leaves, tree_unflatten


class Onnx:
    declared = ONNX

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        from foldproof.comparison.runtimes import export_onnx, onnx

        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "onnx") from None
        program = export_module(deepcopied(model), args, kwargs)
        tap = OnnxTap(log, tree_leaves((args, kwargs)))
        with tap_passes(log), tap.export():
            path = export_onnx(program.module(), args, tap.folder / "model.onnx", kwargs)
        tap.load(path)
        call, _ = onnx(path, log.without)

        def run(*args: Any, **kwargs: Any) -> Any:
            return tree_unflatten(call(tree_leaves((args, kwargs)), {}), program.call_spec.out_spec)

        return Compiled(run, "the ONNX model in ONNX Runtime")

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        return [], ["got = torch.onnx.export(model, inputs, dynamo=True)(*inputs)[0]"]


COMPILER = Onnx()
