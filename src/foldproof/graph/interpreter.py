"""Running a graph node by node: each node can be watched, given another value, and blamed for a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

Watch = Callable[[fx.Node, Any], None]
"""Called with each node of a graph and its result, while a program runs."""
Again = Callable[..., Any]
"""Computes a node's value once more from the same operands, or applies another function to them."""
Change = Callable[[fx.Node, Any, Again], Any]
"""Called with each node that computes something, its value, and `Again`; gives the node's value from there on."""


class Interpreter(fx.Interpreter):
    """`torch.fx.Interpreter` with hooks. An exception gets the node that raised it as its attribute ``node``.

    Args:
        module: the graph, and what it reads.
        watch: called after each node.
        before: called before each node.
        change: called after each node but the output, before ``watch``.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        watch: Watch | None = None,
        *,
        before: Callable[[fx.Node], None] | None = None,
        change: Change | None = None,
    ) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.extra_traceback = False
        self._watch, self._before, self._change = watch, before, change

    def run_node(self, n: fx.Node) -> Any:
        if self._before is not None:
            self._before(n)
        try:
            out = super().run_node(n)
        except Exception as error:
            if not hasattr(error, "node"):
                error.node = n  # type: ignore[attr-defined]
            raise
        if self._change is not None and n.op != "output":

            def again(function: Any = n.target) -> Any:
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                return function(*args, **kwargs)

            out = self._change(n, out, again)
        if self._watch is not None:
            self._watch(n, out)
        return out
