"""`torch.export`, and the decompositions with which most deployments begin."""

from __future__ import annotations

from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, require_known_options
from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.compiler_catalog import EXPORT
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied


class Export:
    declared = EXPORT

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        program = export_module(deepcopied(model), args, kwargs)
        with tap_passes(log):
            module = program.run_decompositions().module()
        return Compiled(module, "the exported program, decomposed", holder=module)

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        return [], ["got = torch.export.export(model, inputs).run_decompositions().module()(*inputs)"]


COMPILER = Export()
