"""The functions of torch.fx and torch.ao that fold BatchNorm in a traced model."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, require_known_options
from foldproof.auditing.log import Log, Rerun
from foldproof.compiler_catalog import FX, TORCH_AO, Declaration
from foldproof.errors import FoldproofError, brief
from foldproof.program.state import deepcopied


class Fuse:
    """A compiler with one pass: a function that takes a model and returns a fused one."""

    def __init__(self, declared: Declaration, module: str, function: str) -> None:
        self.declared, self._module, self._function = declared, module, function

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        fuse: Callable[[Any], Any] = getattr(importlib.import_module(self._module), self._function)
        try:
            traced = torch.fx.symbolic_trace(deepcopied(model))
        except Exception as error:
            raise FoldproofError(
                f"torch.fx can't trace the model, which {self._function} needs ({brief(error)})"
            ) from error
        if log.leaves_out(self._function):
            return Compiled(traced, "the traced model", holder=traced)
        with warnings.catch_warnings(), log.call(self._function, traced, lambda: Rerun(fuse, traced)) as made:
            warnings.simplefilter("ignore")  # torch.ao is deprecated
            fused = fuse(deepcopied(model))
            made.append(fused)
        return Compiled(fused, "the fused model", holder=fused)

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        return [f"from {self._module} import {self._function}"], [f"got = {self._function}(model)(*inputs)"]


FX_FUSE = Fuse(FX, "torch.fx.experimental.optimization", "fuse")
TORCH_AO_FUSE = Fuse(TORCH_AO, "torch.ao.quantization.quantize_fx", "fuse_fx")
