"""Operators that read one tensor, and that one operator over joined weights can do at once."""

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
"""An operator, its arguments and its keyword arguments."""


@dataclass(frozen=True)
class Member:
    """``node`` computes a linear function of its argument ``name``, with a weight, and a bias or None.

    Its outputs are along ``axis`` of its value (from the end), and along ``weight_axis`` of the weight. Operators of
    equal ``kind`` can be one, which is `called` on the joined weights and biases.
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
        """What it is a function of."""
        return arguments(self.node)[self.name]

    @property
    def size(self) -> int:
        """The number of its outputs."""
        return int(value_of(self.weight).shape[self.weight_axis])

    @property
    def transposed(self) -> Node | None:
        """The node of which the weight is a transposition, where it is one; decomposed linears have such weights."""
        if kind_of(self.weight) not in ("t", "transpose", "permute") or value_of(self.weight).dim() != 2:
            return None
        stored: Node = self.weight.all_input_nodes[0]
        numbers = torch.arange(6).reshape(2, 3)
        target, args, kwargs = operator_of(self.weight), self.weight.args[1:], self.weight.kwargs
        return stored if target is not None and target(numbers, *args, **kwargs).shape == (3, 2) else None


def member(node: Node) -> Member | None:
    """The node as a linear function of its input, or None where it is none of those that are known.

    linear, addmm, mm and matmul with a matrix, and convolutions that are not grouped: the outputs of groups lie between
    one another when they are joined. Edge programs have no views, so that a part of a value is a copy there.
    """
    kind = kind_of(node)
    if (kind not in _KNOWN and kind not in Convolution.kinds) or is_edge(node):
        return None
    given = arguments(node)
    found = _convolution(node, given) if kind in Convolution.kinds else _KNOWN[kind](node, given)
    if found is None or not all(isinstance(part, Node) for part in (found.x, found.weight)):
        return None
    return found if value_of(found.weight).dim() >= 2 else None


def _linear(node: Node, given: dict[str, Any]) -> Member:
    def called(x: Any, weight: Any, bias: Any) -> Call:
        return aten.linear.default, (x, weight, bias) if bias is not None else (x, weight), {}

    return Member(node, "input", given["weight"], given["bias"], -1, 0, "linear", called)


def _matmul(node: Node, given: dict[str, Any]) -> Member | None:
    def called(x: Any, weight: Any, bias: Any) -> Call:
        return aten.matmul.default, (x, weight), {}

    found = Member(node, "self", given["other"], None, -1, 1, "matmul", called)
    return found if value_of(given["other"]).dim() == 2 else None


def _product(node: Node, given: dict[str, Any]) -> Member | None:
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
        return None  # another one for each row, or one for all
    return Member(node, "mat1", given["mat2"], bias, -1, 1, kind, called)


_KNOWN: dict[str, Callable[[Node, dict[str, Any]], Member | None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "addmm": _product,
    "mm": _product,
}


def _convolution(node: Node, given: dict[str, Any]) -> Member | None:
    if given["groups"] != 1 or given.get("transposed", False):
        return None
    kernel = tuple(value_of(given["weight"]).shape[2:])
    geometry = {name: value for name, value in given.items() if name not in ("input", "weight", "bias")}

    def called(x: Any, weight: Any, bias: Any) -> Call:
        return operator_of(node), (x, weight, bias, *geometry.values()), {}

    kind = (operator_of(node), kernel, *(_hashable(value) for value in geometry.values()))
    return Member(node, "input", given["weight"], given["bias"], -1 - len(kernel), 0, kind, called)


def _hashable(x: Any) -> Hashable:
    return tuple(map(_hashable, x)) if isinstance(x, (list, tuple)) else x


@dataclass(frozen=True)
class Group:
    """Members of one kind that read one tensor (``is_shared``), or of equal sizes that read one each."""

    members: list[Member]
    is_shared: bool

    @property
    def reads(self) -> list[Node]:
        """All that they read."""
        return list(dict.fromkeys(member.x for member in self.members))


def groups(nodes: Iterable[Node], is_constant: Callable[[Node], bool]) -> list[Group]:
    """Two or more members each, in the order of the graph; first those that read one tensor, then of what is left."""
    places: dict[Node, int] = {}
    shared: dict[Hashable, list[Member]] = {}
    for place, node in enumerate(nodes):
        places[node] = place
        one = member(node)
        if one is not None and not is_constant(one.node) and not is_constant(one.x):
            key = (_read(one.x), one.kind, one.transposed is None, value_of(one.weight).dtype, value_of(node).dtype)
            shared.setdefault(key, []).append(one)
    found = [Group(group, True) for group in shared.values() if len(group) > 1]
    alone = [one for group in shared.values() if len(group) == 1 for one in group]
    return sorted([*found, *_of_equal_sizes(alone, places)], key=lambda group: places[group.members[0].node])


def _of_equal_sizes(members: Iterable[Member], places: Mapping[Node, int]) -> list[Group]:
    """Matrices of equal sizes, whose inputs are all there before the first of them: so none depends on another."""
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


def views_of(x: Node) -> list[Node]:
    """The views of which ``x`` is the last, from there up."""
    found = []
    while is_view(x):
        found.append(x)
        x = x.all_input_nodes[0]
    return found


def _read(x: Node) -> Hashable:
    """What a node shows: equal views of one node show the same (decomposed linears flatten their input each)."""
    views = views_of(x)
    shown = [(v.target, *map(_hashable, v.args[1:]), *map(_hashable, sorted(v.kwargs.items()))) for v in views]
    return (views[-1].all_input_nodes[0] if views else x, *shown)
