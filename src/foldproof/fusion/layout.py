"""Layout: the strides of later values when a computed value is replaced by an existing one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from foldproof.graph.nodes import operator_of
from foldproof.log import log_caught
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of


def propagate_strides(new: Mapping[Node, Tensor], order: Callable[[Node], int]) -> dict[Node, Any]:
    """Return the fake tensors of all nodes whose strides change when some nodes get the ``new`` values.

    Raises:
        CannotFold: the dtype changes, an operator refuses the new strides, or they reach the program's output.
    """
    changed: dict[Node, Any] = {}
    queue: list[tuple[int, Node]] = []

    def settle(node: Node, value: Any) -> None:
        if have_equal_strides(value, node.meta.get("val")):
            return
        changed[node] = value
        for user in node.users:
            heapq.heappush(queue, (order(user), user))

    for result, given in new.items():
        value = value_of(result)
        if value.dtype != given.dtype:
            raise CannotFold(f"it converts {given.dtype} to {value.dtype}, so the dtype would change without it")
        settle(result, given)
    seen: set[Node] = set()
    while queue:
        node = heapq.heappop(queue)[1]
        if node not in seen:
            seen.add(node)
            settle(node, _compute_value(node, changed))
    return changed


def _compute_value(node: Node, changed: Mapping[Node, Any]) -> Any:
    """Compute the fake result of a node from operands with new strides."""
    if node.op == "output":
        raise CannotFold("its result would have another layout in memory, and is the program's output")
    call = operator_of(node) or node.target
    mode = next(value for value in changed.values() if isinstance(value, Tensor)).fake_mode  # type: ignore[attr-defined]
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda x: changed.get(x, x.meta.get("val")))
    try:
        with mode:
            found = call(*args, **kwargs)  # type: ignore[operator]
    except Exception as error:
        log_caught(error, f"running {node.name} on other strides")
        raise CannotFold(f"its result would have another layout in memory, which {node.name} can't read") from error
    if not _have_equal_shapes(found, node.meta.get("val")):
        raise CannotFold(f"without it, {node.name} would have another shape")
    return found


def have_equal_strides(a: Any, b: Any) -> bool:
    """Return True for equal strides; those of dimensions of size 0 or 1 have no meaning and are ignored."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        rows = zip(a.shape, a.stride(), b.stride(), strict=True)
        return all(statically_known_true(n <= 1) or statically_known_true(s == t) for n, s, t in rows)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return all(have_equal_strides(x, y) for x, y in zip(a, b, strict=True))
    return True


def _have_equal_shapes(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dim() == b.dim() and all(statically_known_true(x == y) for x, y in zip(a.shape, b.shape, strict=True))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_have_equal_shapes(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, (int, float, torch.SymInt, type(None))) or type(a) is type(b)
