"""Linear operators that read one tensor become one, whose output they are parts of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.fx import Graph, Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.rule import NewConstant
from foldproof.fusion.batching.members import Member, groups, views_of
from foldproof.fusion.batching.timing import require_faster
from foldproof.fusion.constants import Constants
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.expression import Expression
from foldproof.fusion.nodes import arguments, aten, listed, operator_of, short_name, value_of
from foldproof.fusion.plan import Edit, Plan
from foldproof.fusion.refusal import CannotFold
from foldproof.fusion.vectors import joined
from foldproof.program.nodes import operator_name


class BatchLinears:
    """x W₁ᵀ + b₁, …, x Wₙᵀ + bₙ = the parts, along the last axis, of x [W₁; …; Wₙ]ᵀ + [b₁; …; bₙ].

    So of products with constant matrices, and of convolutions of equal geometry along their output channels. The
    weights are joined once, here; a missing bias is zeros where another has one. The parts are views. An operator on
    single elements that is all that reads each of them is done once, on the whole.

    Sums are the same sums, but may be added up in another order; and whether it is faster depends on the machine and on
    the shapes. So it has to be asked for, and is done where it was measured to be faster. `batch_linears_bitwise` does
    the same where all bits are the same, too, on all inputs that are tried; which is said of this machine only.
    """

    fires: tuple[Fires, ...] = examples.batching_fires
    declines: tuple[Declines, ...] = examples.batching_declines

    def __init__(self, id: str, *, bitwise: bool) -> None:
        self.id = id
        self.bitwise = bitwise

    def groups(self, graph: Graph, constants: Constants) -> list[list[Member]]:
        """Operators that may become one, in the order of the graph."""
        return groups(graph.nodes, constants.holds)

    def plan(self, group: Sequence[Member], constants: Constants) -> Plan:
        """The plan to make one operator of a group.

        Raises:
            CannotFold: it would be another function, with the reason.
        """
        first = group[0]
        constants.require_lasting(first.x)
        names = [_names(member, constants) for member in group]
        _require_alike(group, [constants.tensors[weight].requires_grad for weight, _ in names])
        tails = _tails(group, constants)
        whole = _Whole(group, tails[0])
        wanted = whole.constants([weight for weight, _ in names], [bias for _, bias in names])
        _, _, parts = whole.values()
        results = [tail[-1] for tail in tails]
        edits = [Edit("", node, (), partial(whole.install, i)) for i, node in enumerate(results)]
        edits[0] = replace(edits[0], rule=f"one {short_name(first.node)}", wanted=wanted)
        return Plan(
            source=self.id,
            folded=[],
            edits=edits,
            parts=dict(zip(results, parts, strict=True)),
            reads=first.x,
            context=[*_views(group), *(node for tail in tails for node in tail[:-1])],
            judge=partial(require_faster, bitwise=self.bitwise),
        )


ANYHOW = BatchLinears("batch_linears", bitwise=False)
"""Results may be rounded otherwise."""
BITWISE = BatchLinears("batch_linears_bitwise", bitwise=True)
"""Only where every bit is the same on all inputs that are tried here, which is said of this machine only."""
BATCHING = (ANYHOW, BITWISE)


@dataclass
class _Whole:
    """The operator that computes all members of a group, in each graph that the plan is carried out in.

    ``tail`` is the first of them, and those on single elements that follow it.
    """

    group: Sequence[Member]
    tail: Sequence[Node]
    made: dict[Graph, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.group[0]
        self.is_transposed = self.first.transposed is not None
        """Weights that are stored transposed stay so."""
        ends = [*itertools.accumulate((member.size for member in self.group), initial=0)]
        rank = value_of(self.first.node).dim()
        self.places = [(rank + self.first.axis, start, end) for start, end in itertools.pairwise(ends)]

    def constants(self, weights: Sequence[str], biases: Sequence[str | None]) -> tuple[NewConstant, ...]:
        """The joined weights and, where a member has one, biases."""
        axis = 1 - self.first.weight_axis if self.is_transposed else self.first.weight_axis
        dtype = value_of(self.first.weight).dtype
        weight = Expression(join_along, (axis, *weights), arranges=True)
        views = (self.first.weight,) if self.is_transposed else ()
        made = NewConstant("weight", weights[0], weights[0], dtype, weight, views, tuple(weights[1:]))
        bias = joined(biases, [member.size for member in self.group], 0.0)
        if bias is None:
            return (made,)
        base, *others = [name for name in biases if name is not None]
        dtype = next(value_of(member.bias).dtype for member in self.group if member.bias is not None)
        return (made, NewConstant("bias", base, base, dtype, bias, (), tuple(others)))

    def values(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Fake values: of the joined weight as it is read, of the whole along its tail, and of its parts."""
        biases = [value_of(member.bias) for member in self.group if member.bias is not None]
        with value_of(self.first.node).fake_mode:  # type: ignore[attr-defined]
            weights = [value_of(member.weight) for member in self.group]
            if self.is_transposed:
                weight = torch.cat([w.t() for w in weights], 1 - self.first.weight_axis).t()
            else:
                weight = torch.cat(weights, self.first.weight_axis)
            bias = biases[0].new_empty(weight.shape[self.first.weight_axis]) if biases else None
            target, args, kwargs = self.first.called(value_of(self.first.x), weight, bias)
            wholes: list[Tensor] = [target(*args, **kwargs)]
            for node in self.tail[1:]:
                wholes.append(operator_of(node)(wholes[-1], *node.args[1:], **node.kwargs))  # type: ignore[misc]
            return weight, wholes, [aten.slice.Tensor(wholes[-1], *place) for place in self.places]

    def install(self, i: int, node: Node, new: Mapping[str, Node]) -> None:
        """Makes ``node``, the result of member ``i``, a part of the whole, which the first one adds to the graph."""
        if i == 0:
            self.made[node.graph] = self._install_whole(node, new["weight"], new.get("bias"))
        node.target, node.args, node.kwargs = aten.slice.Tensor, (self.made[node.graph], *self.places[i]), {}

    def _install_whole(self, result: Node, weight: Node, bias: Node | None) -> Node:
        tail = [result]
        while len(tail) < len(self.tail):
            tail.insert(0, tail[0].all_input_nodes[0])
        weight_value, values, _ = self.values()
        if self.is_transposed:
            weight.meta["val"] = weight_value
        made: list[Node] = []
        with result.graph.inserting_before(result):
            for node, value in zip(tail, values, strict=True):
                new = result.graph.node_copy(node, lambda operand: operand)
                if made:
                    new.args = (made[-1], *node.args[1:])
                else:
                    x = arguments(node)[self.first.name]
                    new.target, new.args, new.kwargs = self.first.called(x, weight, bias)
                new.meta["val"] = value
                made.append(new)
        return made[-1]


def _tails(group: Sequence[Member], constants: Constants) -> list[list[Node]]:
    """Of each member, itself and the operators on single elements behind it that are the same for all."""
    tails = [[member.node] for member in group]
    while True:
        readers = [list(tail[-1].users) for tail in tails]
        if any(len(row) != 1 or not _is_pointwise(row[0]) or constants.is_written(row[0]) for row in readers):
            return tails
        nexts = [row[0] for row in readers]
        if len({(node.target, str(node.args[1:]), str(node.kwargs)) for node in nexts}) > 1:
            return tails
        for tail, node in zip(tails, nexts, strict=True):
            tail.append(node)


def _is_pointwise(node: Node) -> bool:
    """Is it a function of each element of its first argument, and of plain numbers?"""
    found = operator_of(node)
    return (
        found is not None
        and torch.Tag.pointwise in found.tags
        and torch.Tag.nondeterministic_seeded not in found.tags
        and not found._schema.is_mutable
        and [x for x in (*node.args, *node.kwargs.values()) if isinstance(x, Node)] == [*node.args[:1]]
    )


def _require_alike(group: Sequence[Member], is_trained: Sequence[bool]) -> None:
    if len(set(is_trained)) > 1:
        trained = [one.node for one, wants_gradient in zip(group, is_trained, strict=True) if wants_gradient]
        raise CannotFold(
            f"the weights of {listed(trained)} are trained, those of the others are not, and one weight can't be both",
            "call requires_grad_(False) on all of them, or on none",
        )


def _views(group: Sequence[Member]) -> list[Node]:
    """Those by which members read one tensor that do not read one node."""
    reads = dict.fromkeys(member.x for member in group)
    return list(dict.fromkeys(view for x in reads for view in views_of(x))) if len(reads) > 1 else []


def _names(member: Member, constants: Constants) -> tuple[str, str | None]:
    """The names of the weight and of the bias, if there is one."""
    if constants.is_written(member.node):
        raise CannotFold(f"the output of {member.node.name} is changed in place")
    weight = _name(member.transposed or member.weight, f"the weight of {member.node.name}", constants)
    return weight, None if member.bias is None else _name(member.bias, f"the bias of {member.node.name}", constants)


def _name(node: Node, what: str, constants: Constants) -> str:
    found = constants.expression(node, what)
    if not isinstance(found, str):
        raise CannotFold(f"{what} is computed in the graph by {node.name} ({operator_name(node)})")
    return found


def join_along(axis: int, *weights: Tensor) -> Tensor:
    return torch.cat(weights, axis)
