"""Members of a batch: linear operators that one operator over joined weights can replace."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from foldproof.fusion.absorb.convolution import Convolution
from foldproof.graph.nodes import arguments, aten, is_edge, is_view, kind_of, operator_of
from foldproof.rewriting.sizes import value_of

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""Operator, arguments and keyword arguments."""


@dataclass(frozen=True)
class Member:
    """A node that computes a linear function of its argument ``name``, with a weight, and a bias or None.

    The outputs lie along ``axis`` of its value (counted from the end) and along ``weight_axis`` of the weight. Members
    of equal ``kind`` can be joined; ``called`` returns the call of the operator on joined weights and biases.
    """

    node: Node
    name: str
    weight: Any
    bias: Any
    axis: int
    weight_axis: int
    kind: Hashable
    called: Callable[[Any, Any, Any], Call]

    @property
    def x(self) -> Any:
        """Argument of the function."""
        return arguments(self.node)[self.name]

    @property
    def size(self) -> int:
        """Number of outputs."""
        return int(value_of(self.weight).shape[self.weight_axis])

    @property
    def transposed(self) -> Node | None:
        """Node whose transposition the weight is, as in decomposed linears; None if it is no transposition."""
        if kind_of(self.weight) not in ("t", "transpose", "permute") or value_of(self.weight).dim() != 2:
            return None
        stored: Node = self.weight.all_input_nodes[0]
        numbers = torch.arange(6).reshape(2, 3)
        target, args, kwargs = operator_of(self.weight), self.weight.args[1:], self.weight.kwargs
        return stored if target is not None and target(numbers, *args, **kwargs).shape == (3, 2) else None


def read_member(node: Node) -> Member | None:
    """Read the node as a linear function of its input; None if it is none of the known ones.

    Known are linear, addmm, mm and matmul with a matrix, and convolutions without groups (the outputs of joined groups
    would be interleaved). Edge programs are left out: they have no views, so each part of a value would be a copy.
    """
    kind = kind_of(node)
    if (kind not in _KNOWN and kind not in Convolution.kinds) or is_edge(node):
        return None
    given = arguments(node)
    found = _read_convolution(node, given) if kind in Convolution.kinds else _KNOWN[kind](node, given)
    if found is None or not all(isinstance(part, Node) for part in (found.x, found.weight)):
        return None
    return found if value_of(found.weight).dim() >= 2 else None


def _read_linear(node: Node, given: dict[str, Any]) -> Member:
    def called(x: Any, weight: Any, bias: Any) -> Call:
        return aten.linear.default, (x, weight, bias) if bias is not None else (x, weight), {}

    return Member(node, "input", given["weight"], given["bias"], -1, 0, "linear", called)


def _read_matmul(node: Node, given: dict[str, Any]) -> Member | None:
    def called(x: Any, weight: Any, bias: Any) -> Call:
        return aten.matmul.default, (x, weight), {}

    found = Member(node, "self", given["other"], None, -1, 1, "matmul", called)
    return found if value_of(given["other"]).dim() == 2 else None


def _read_product(node: Node, given: dict[str, Any]) -> Member | None:
    beta, alpha = given.get("beta", 1), given.get("alpha", 1)

    def called(x: Any, weight: Any, bias: Any) -> Call:
        if bias is None:
            return aten.mm.default, (x, weight), {}
        factors = {name: factor for name, factor in (("beta", beta), ("alpha", alpha)) if factor != 1}
        return aten.addmm.default, (bias, x, weight), factors

    kind = ("addmm", beta, alpha)
    if kind_of(node) == "mm":
        return Member(node, "self", given["mat2"], None, -1, 1, kind, called)
    bias = given["self"]
    if value_of(bias).dim() != 1 or value_of(bias).shape[0] != value_of(node).shape[1]:
        return None  # a bias for each row, or one for all outputs
    return Member(node, "mat1", given["mat2"], bias, -1, 1, kind, called)


_KNOWN: dict[str, Callable[[Node, dict[str, Any]], Member | None]] = {
    "linear": _read_linear,
    "matmul": _read_matmul,
    "addmm": _read_product,
    "mm": _read_product,
}


def _read_convolution(node: Node, given: dict[str, Any]) -> Member | None:
    if given["groups"] != 1 or given.get("transposed", False):
        return None
    kernel = tuple(value_of(given["weight"]).shape[2:])
    geometry = {name: value for name, value in given.items() if name not in ("input", "weight", "bias")}

    def called(x: Any, weight: Any, bias: Any) -> Call:
        return operator_of(node), (x, weight, bias, *geometry.values()), {}

    kind = (operator_of(node), kernel, *(_make_hashable(value) for value in geometry.values()))
    return Member(node, "input", given["weight"], given["bias"], -1 - len(kernel), 0, kind, called)


def _make_hashable(x: Any) -> Hashable:
    return tuple(map(_make_hashable, x)) if isinstance(x, (list, tuple)) else x


@dataclass(frozen=True)
class Group:
    """Members of one kind that read one tensor (``is_shared``), or members of equal sizes that read a tensor each."""

    members: list[Member]
    is_shared: bool

    @property
    def reads(self) -> list[Node]:
        """Nodes that the members read."""
        return list(dict.fromkeys(member.x for member in self.members))


def find_groups(nodes: Iterable[Node], is_constant: Callable[[Node], bool]) -> list[Group]:
    """Find groups of at least two members, in the order of the graph: first those that read one tensor, then others."""
    places: dict[Node, int] = {}
    shared: dict[Hashable, list[Member]] = {}
    for place, node in enumerate(nodes):
        places[node] = place
        one = read_member(node)
        if one is not None and not is_constant(one.node) and not is_constant(one.x):
            key = (_make_key(one.x), one.kind, one.transposed is None, value_of(one.weight).dtype, value_of(node).dtype)
            shared.setdefault(key, []).append(one)
    found = [Group(group, True) for group in shared.values() if len(group) > 1]
    alone = [one for group in shared.values() if len(group) == 1 for one in group]
    return sorted([*found, *_group_equal_sizes(alone, places)], key=lambda group: places[group.members[0].node])


def _group_equal_sizes(members: Iterable[Member], places: Mapping[Node, int]) -> list[Group]:
    """Find groups of equal sizes whose inputs all come before the first member, so that none depends on another."""
    open_groups: dict[Hashable, list[Member]] = {}
    found: list[list[Member]] = []
    for one in sorted(members, key=lambda member: places[member.node]):
        x, weight = value_of(one.x), value_of(one.weight)
        if x.dim() != 2 or one.kind not in ("linear", ("addmm", 1, 1)):
            continue
        key = (one.kind, one.transposed is None, str(x.shape), tuple(weight.shape), weight.dtype, x.dtype)
        group = open_groups.get(key)
        if group is None or places[one.x] > places[group[0].node]:
            group = open_groups[key] = []
            found.append(group)
        group.append(one)
    return [Group(group, False) for group in found if len(group) > 1]


def list_views(x: Node) -> list[Node]:
    """List the chain of views that ends in ``x``, from ``x`` up."""
    found = []
    while is_view(x):
        found.append(x)
        x = x.all_input_nodes[0]
    return found


def _make_key(x: Node) -> Hashable:
    """Return a key of a node's value: equal views of one node have equal keys (decomposed linears each flatten x)."""
    views = list_views(x)
    shown = [
        (v.target, *map(_make_hashable, v.args[1:]), *map(_make_hashable, sorted(v.kwargs.items()))) for v in views
    ]
    return (views[-1].all_input_nodes[0] if views else x, *shown)
