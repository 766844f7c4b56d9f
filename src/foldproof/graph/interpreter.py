"""Running a graph node by node, with hooks to watch and replace values, and the failing node in exceptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.errors import EndlessLoop
from foldproof.thresholds import MAX_TRIPS

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

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        run = CONTROL_FLOW.get(target)
        return super().call_function(target, args, kwargs) if run is None else run(*args, **kwargs)

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


# Control flow is run as Python runs it: the operators themselves refuse tensors of other classes than their own.


def _cond(condition: Any, then: fx.GraphModule, otherwise: fx.GraphModule, operands: Sequence[Any] = ()) -> Any:
    return Interpreter(then if bool(condition) else otherwise).run(*operands)


def _while_loop(
    condition: fx.GraphModule, body: fx.GraphModule, carried: Sequence[Any], beside: Sequence[Any] = ()
) -> Any:
    def goes_on() -> bool:
        return bool(*_as_list(Interpreter(condition).run(*carried, *beside)))

    if not goes_on():  # without a trip, the operator returns copies
        return tuple(x.clone() if isinstance(x, Tensor) else x for x in carried)
    for _ in range(MAX_TRIPS):
        carried = _as_list(Interpreter(body).run(*carried, *beside))
        if not goes_on():
            return tuple(carried)
    raise EndlessLoop(f"a loop is not at its end after {MAX_TRIPS} trips")


def _scan(step: fx.GraphModule, carried: Sequence[Any], xs: Sequence[Any], beside: Sequence[Any] = ()) -> Any:
    rows = []
    for i in range(len(xs[0])):
        made = _as_list(Interpreter(step).run(*carried, *(x[i] for x in xs), *beside))
        carried, row = made[: len(carried)], made[len(carried) :]
        rows.append(row)
    return (*carried, *(torch.stack(column) for column in zip(*rows)))


def _map(step: fx.GraphModule, xs: Sequence[Any], beside: Sequence[Any] = ()) -> Any:
    rows = [_as_list(Interpreter(step).run(*(x[i] for x in xs), *beside)) for i in range(len(xs[0]))]
    return tuple(torch.stack(column) for column in zip(*rows))


def _invoke(called: fx.GraphModule, name: str, *operands: Any) -> Any:
    return Interpreter(called).run(*operands)


def _as_list(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (tuple, list)) else [x]


CONTROL_FLOW: dict[Any, Callable[..., Any]] = {
    torch.ops.higher_order.cond: _cond,
    torch.ops.higher_order.invoke_subgraph: _invoke,
    torch.ops.higher_order.map_impl: _map,
    torch.ops.higher_order.scan: _scan,
    torch.ops.higher_order.while_loop: _while_loop,
}
"""Operators that run parts of a graph, by condition or several times."""
