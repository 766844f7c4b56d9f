"""In-place operators of a graph as functional ones, and back.

A rewriter reasons about values. `make_functional` turns ``y.add_(z)`` into ``add(y, z)``, which later readers of y read
in its place. It does so only where nothing else shows the memory of y afterwards: no input, parameter, or view that is
read later. `make_in_place` turns the calls that are left back, so that a program keeps its peak of memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from foldproof.graph.nodes import arguments, is_getitem, list_sharing, operator_of
from foldproof.log import log_caught
from foldproof.operators import find_functional_form, is_functional, is_pointwise, list_written, writes_result
from foldproof.torch_internals import FakeTensor, OpOverload

InPlace = dict[Node, OpOverload]
"""Nodes that were in place, with their operators."""


def make_functional(graph: Graph) -> InPlace:
    """Turn the in-place operators into functional ones that can be; return them for `make_in_place`."""
    found: InPlace = {}
    memory = _Memory()
    for node in list(graph.nodes):
        functional = _find_functional(node)
        if functional is not None and memory.is_free_after(node, node.args[0], but=node.args[0]):
            found[node] = node.target
            target = node.args[0]
            later = [user for user in target.users if user is not node and memory.is_later(user)]
            node.target = functional
            for user in later:
                user.replace_input_with(target, node)
        memory.add(node)
    return found


def make_in_place(graph: Graph, converted: InPlace) -> None:
    """Turn functional operators back where nothing reads the memory of the first operand afterwards."""
    memory = _Memory()
    for node in graph.nodes:
        if node in converted and _can_write(node) and memory.is_free_after(node, node.args[0]):
            node.target = converted[node]
        memory.add(node)


class _Memory:
    """The nodes so far, by the memory that their values may share."""

    def __init__(self) -> None:
        self._roots: dict[Node, frozenset[Node]] = {}
        self._members: dict[Node, list[Node]] = {}

    def add(self, node: Node) -> None:
        """Add the next node of the graph."""
        # The result of a subgraph or a function of Python may be a view of any of its operands.
        known = operator_of(node) is not None or is_getitem(node)
        operands = list_sharing(node) if known else node.all_input_nodes
        shared = [root for operand in operands for root in self._roots[operand]]
        self._roots[node] = frozenset(shared or [node])
        for root in self._roots[node]:
            self._members.setdefault(root, []).append(node)

    def is_later(self, node: Node) -> bool:
        """Return True if ``node`` has not been added yet."""
        return node not in self._roots

    def is_free_after(self, writer: Node, target: Node, but: Node | None = None) -> bool:
        """Return True if calls alone made ``target``'s memory, and nothing reads it after ``writer``, the next node.

        Later readers of the node ``but`` do not count.
        """
        roots = self._roots[target]
        members = [node for root in roots for node in self._members[root]]
        return all(root.op == "call_function" for root in roots) and not any(
            user is not writer and self.is_later(user) for node in members if node is not but for user in node.users
        )


def _find_functional(node: Node) -> OpOverload | None:
    """Return the functional operator that computes the same value as an in-place one, in the same layout; or None."""
    operator = operator_of(node)
    if operator is None or operator is not node.target or not writes_result(operator):
        return None
    given = arguments(node)
    written = list_written(operator)
    form = find_functional_form(operator)
    if form is None or form.memory or len(written) != 1 or not node.args or given[written[0]] is not node.args[0]:
        return None
    if not is_functional(form.operator, given):
        return None
    value = _compute_value(form.operator, node)
    return form.operator if value is not None and _is_alike(value, node.meta["val"]) else None


def _can_write(node: Node) -> bool:
    """Return True if the first operand can hold the result while it is read."""
    target, operator = node.args[0], operator_of(node)
    if not isinstance(target, Node) or operator is None:
        return False
    operands: list[Node] = []
    map_arg((node.args, node.kwargs), operands.append)
    old, new = target.meta.get("val"), node.meta.get("val")
    overlaps = isinstance(old, Tensor) and any(
        step == 0 and size != 1 for size, step in zip(old.shape, old.stride(), strict=True)
    )
    return (is_pointwise(operator) or operands.count(target) == 1) and not overlaps and _is_alike(old, new)


def _compute_value(operator: OpOverload, node: Node) -> Any:
    operands: list[Any] = []
    map_arg((node.args, node.kwargs), lambda x: operands.append(x.meta.get("val")))
    if not isinstance(node.meta.get("val"), FakeTensor) or any(x is None for x in operands):
        return None
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda x: x.meta["val"])
    try:
        with node.meta["val"].fake_mode:
            return operator(*args, **kwargs)
    except Exception as error:
        log_caught(error, f"running {node.name} without writing")
        return None


def _is_alike(a: Any, b: Any) -> bool:
    """Return True for tensors of one dtype, shape and layout."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype or a.dim() != b.dim():
        return False
    pairs: Iterable[tuple[Any, Any]] = [*zip(a.shape, b.shape), *zip(a.stride(), b.stride())]
    return all(statically_known_true(x == y) for x, y in pairs)
