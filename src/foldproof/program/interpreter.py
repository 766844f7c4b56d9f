"""Runs a graph node by node, reports each, and says which node a failure comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

Watch = Callable[[fx.Node, Any], None]
"""Called with each node of a graph and its result, while a program runs."""


class Interpreter(fx.Interpreter):
    """`torch.fx.Interpreter` with a ``watch``; an exception gets the node that raised it as its ``node``."""

    def __init__(self, module: fx.GraphModule, watch: Watch | None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.extra_traceback = False
        self._watch = watch

    def run_node(self, n: fx.Node) -> Any:
        try:
            out = super().run_node(n)
        except Exception as error:
            if not hasattr(error, "node"):
                error.node = n  # type: ignore[attr-defined]
            raise
        if self._watch is not None:
            self._watch(n, out)
        return out
