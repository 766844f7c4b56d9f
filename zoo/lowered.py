"""Compilation with Inductor up to its loops, without kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.log import Change, Log
from foldproof.auditing.loops import LOOP_STEPS, SCHEDULING
from foldproof.auditing.step import Step
from foldproof.program.state import quiet_copies


class _Done(BaseException):
    """Ends a compilation before it generates kernels."""


def loop_steps(model: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any] | None = None) -> dict[str, Step]:
    """The steps of the last graph that lead to loops, by name; those of a graph that does not change are left out."""
    log = Log()

    def stop(change: Change) -> None:
        if change.name == SCHEDULING and not change.part:  # parts that control flow runs come before the whole
            raise _Done

    log.watch = stop
    with torch.no_grad(), quiet_copies(), contextlib.suppress(_Done):
        find_compiler("inductor").compile(model, tuple(inputs), {}, options or {}, log)
    return {
        "/".join(filter(None, (c.part, c.name))): Step(c, inputs)
        for c in log.changes
        if c.name in LOOP_STEPS and c.fired
    }


class Function(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)
