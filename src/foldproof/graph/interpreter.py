"""Running a graph node by node, with hooks to watch and replace values, and the failing node in exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

Watch = Callable[[fx.Node, Any], None]
"""A function called with each node of a graph and its result, while a program runs."""
Again = Callable[..., Any]
"""A function that computes a node's value once more, or applies another function to the same operands."""
Change = Callable[[fx.Node, Any, Again], Any]
"""A function called with each computing node, its value, and `Again`; it returns the value to continue with."""


class Interpreter(fx.Interpreter):
    """`torch.fx.Interpreter` with hooks. An exception carries the node that raised it as its attribute ``node``.

    Args:
        module: the graph with its constants.
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
