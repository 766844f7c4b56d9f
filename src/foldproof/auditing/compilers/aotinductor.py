"""AOTInductor: an exported program, compiled by Inductor ahead of time into a package of a library and its weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options
from foldproof.auditing.compilers.inductor import configure, write_settings
from foldproof.auditing.log import Log
from foldproof.auditing.taps.inductor import tap_inductor
from foldproof.compiler_catalog import AOTINDUCTOR
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied
from foldproof.torch_internals import load_package, save_package


class AOTInductor:
    declared = AOTINDUCTOR

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        program = export_module(deepcopied(model), args, kwargs)
        folder = tempfile.TemporaryDirectory()
        path = str(Path(folder.name) / "model.pt2")
        with configure(options), tap_inductor(log, program.module()):
            save_package(program, path)
        loaded = [load_package(path)]

        def restart() -> None:
            loaded[0] = load_package(str(Path(folder.name) / "model.pt2"))  # the folder lives as long as this function

        return Compiled(lambda *a, **k: loaded[0](*a, **k), "the package of AOTInductor", restart=restart)

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        imports, settings = write_settings(options)
        return [*imports, "import torch._inductor"], [
            *settings,
            "path = torch._inductor.aoti_compile_and_package(torch.export.export(model, inputs))",
            "got = torch._inductor.aoti_load_package(path)(*inputs)",
        ]


COMPILER = AOTInductor()
