"""OpenVINO on the CPU: the conversion, its transformations for all devices, and those of the plugin."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, require_known_options
from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.auditing.taps.openvino import READABLE, OpenvinoTap
from foldproof.comparison.runtimes import OPENVINO_SETTINGS, run_openvino
from foldproof.compiler_catalog import OPENVINO
from foldproof.errors import MissingExtra
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied
from foldproof.torch_internals import tree_leaves, tree_unflatten


class Openvino:
    declared = OPENVINO

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        try:
            import openvino
        except ModuleNotFoundError:
            raise MissingExtra("openvino", "openvino") from None
        program = export_module(deepcopied(model), args, kwargs)
        tap = OpenvinoTap(log, tuple(tree_leaves((args, kwargs))))
        with tap_passes(log), tap.convert(program):
            converted = openvino.convert_model(program)
        with tap.compile(converted) as made:
            compiled = openvino.compile_model(converted, "CPU", OPENVINO_SETTINGS | READABLE)
            made.append(compiled)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            return tree_unflatten(run_openvino(compiled, given), program.call_spec.out_spec)

        return Compiled(call, "the model in OpenVINO")

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        return ["import openvino"], [
            "program = openvino.convert_model(torch.export.export(model, inputs))",
            f"compiled = openvino.compile_model(program, config={OPENVINO_SETTINGS})",
            "got = torch.from_numpy(compiled([x.numpy() for x in inputs])[0])",
        ]


COMPILER = Openvino()
