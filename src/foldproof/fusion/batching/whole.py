"""The joined operator: over concatenated weights if the members read one tensor, else over stacked weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Graph, Node

from foldproof.fusion.batching.members import Call, Member
from foldproof.graph.nodes import arguments, aten, operator_of, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import NewConstant
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import joined, reshaped

Apply = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""Function that applies an operator, to fake tensors, or to nodes by adding a node to a graph."""


class Join(Protocol):
    """A way to join members."""

    name: str
    views: tuple[Node, ...]
    """Views through which the joined weight is read."""

    def weight(self, names: Sequence[str]) -> Expression:
        """Return the joined weight of the constants with these names."""

    def bias(self, names: Sequence[str | None]) -> Operand:
        """Return the joined bias, with zeros for missing ones; None if all are missing."""

    def fake(self) -> tuple[Tensor, Tensor | None]:
        """Make fake tensors for the joined weight, as it is read, and for the bias; called in a fake mode."""

    def apply(self, apply: Apply, xs: Sequence[Any], weight: Any, bias: Any) -> Any:
        """Apply the joined operator to the inputs of all members."""

    def part(self, whole: Any, i: int) -> Call:
        """Return the call that takes the value of member ``i`` out of the whole, as a view."""


class Concatenated:
    """Members that read one tensor: their outputs lie one after another."""

    def __init__(self, group: Sequence[Member]) -> None:
        self.group, self.first = group, group[0]
        self.name = f"one {short_name(self.first.node)}"
        # A weight that is stored transposed stays transposed.
        self.views: tuple[Node, ...] = () if self.first.transposed is None else (self.first.weight,)
        self.axis = self.first.weight_axis
        ends = [*itertools.accumulate((member.size for member in group), initial=0)]
        rank = value_of(self.first.node).dim()
        self.places = [(rank + self.first.axis, start, end) for start, end in itertools.pairwise(ends)]

    def weight(self, names: Sequence[str]) -> Expression:
        axis = 1 - self.axis if self.views else self.axis
        return Expression(concatenate, (axis, *names), arranges=True)

    def bias(self, names: Sequence[str | None]) -> Operand:
        return joined(names, [member.size for member in self.group], 0.0)

    def fake(self) -> tuple[Tensor, Tensor | None]:
        weights = [value_of(member.weight) for member in self.group]
        weight = torch.cat(weights, self.axis)
        if self.views:
            weight = weight.t().contiguous().t()
        bias = next((value_of(member.bias) for member in self.group if member.bias is not None), None)
        return weight, None if bias is None else bias.new_empty(weight.shape[self.axis])

    def apply(self, apply: Apply, xs: Sequence[Any], weight: Any, bias: Any) -> Any:
        return apply(*self.first.called(xs[0], weight, bias))

    def part(self, whole: Any, i: int) -> Call:
        return aten.slice.Tensor, (whole, *self.places[i]), {}


class Stacked:
    """Members that read a tensor each: matrices of equal sizes, multiplied in one batch."""

    name = "one batch of products"
    views: tuple[Node, ...] = ()

    def __init__(self, group: Sequence[Member]) -> None:
        self.group, self.first = group, group[0]
        self.stored = [member.transposed or member.weight for member in group]
        self.outputs_first = (self.first.weight_axis == 0) != (self.first.transposed is not None)
        # PyTorch 2.13 can't trace a baddbmm that broadcasts to unknown sizes.
        self.adds_apart = not all(isinstance(size, int) for size in value_of(self.first.node).shape)

    def weight(self, names: Sequence[str]) -> Expression:
        return Expression(stack, tuple(names), arranges=True)

    def bias(self, names: Sequence[str | None]) -> Operand:
        sizes = [member.size for member in self.group]
        return reshaped(joined(names, sizes, 0.0), (len(sizes), 1, sizes[0]))

    def fake(self) -> tuple[Tensor, Tensor | None]:
        bias = next((value_of(member.bias) for member in self.group if member.bias is not None), None)
        weight = torch.stack([value_of(stored) for stored in self.stored])
        return weight, None if bias is None else bias.new_empty((len(self.group), 1, self.first.size))

    def apply(self, apply: Apply, xs: Sequence[Any], weight: Any, bias: Any) -> Any:
        x = apply(aten.stack.default, (list(xs),), {})
        if self.outputs_first:
            weight = apply(aten.transpose.int, (weight, 1, 2), {})
        if bias is None or self.adds_apart:
            whole = apply(aten.bmm.default, (x, weight), {})
            return whole if bias is None else apply(aten.add.Tensor, (whole, bias), {})
        return apply(aten.baddbmm.default, (bias, x, weight), {})

    def part(self, whole: Any, i: int) -> Call:
        return aten.select.int, (whole, 0, i), {}


@dataclass
class Whole:
    """The joined operator of a group, followed by the pointwise operators common to its members.

    ``tails`` are the members' nodes, each with the pointwise operators after it, which are the same for all.
    """

    group: Sequence[Member]
    join: Join
    tails: Sequence[Sequence[Node]]
    _results: dict[Graph, dict[int, Node]] = field(default_factory=dict)

    def constants(self, names: Sequence[tuple[str, str | None]], constants: Constants) -> tuple[NewConstant, ...]:
        """Return the joined weight and, if any member has one, the joined bias of the constants with these names."""
        weights, biases = [weight for weight, _ in names], [bias for _, bias in names]

        def new(role: str, replaced: Sequence[str], value: Operand, views: tuple[Node, ...]) -> NewConstant:
            [base, *others] = replaced
            return NewConstant(role, base, base, constants.tensors[base].dtype, value, views, tuple(others))

        weight = new("weight", weights, self.join.weight(weights), self.join.views)
        found = self.join.bias(biases)
        if found is None:
            return (weight,)
        return weight, new("bias", [name for name in biases if name is not None], found, ())

    def parts(self) -> list[Tensor]:
        """Compute fake values of the results, which are views of the whole."""
        *_, whole = self._fakes()
        with whole.fake_mode:  # type: ignore[attr-defined]
            calls = [self.join.part(whole, i) for i in range(len(self.group))]
            return [target(*args, **kwargs) for target, args, kwargs in calls]

    def install(self, i: int, node: Node, new: Mapping[str, Node]) -> None:
        """Turn ``node``, the result of member ``i``, into a part of the whole; the last call has the ``new`` nodes."""
        results = self._results.setdefault(node.graph, {})
        results[i] = node
        if not new:
            return
        whole = self._added([results[i] for i in range(len(self.group))], new["weight"], new.get("bias"))
        for place, result in results.items():
            result.target, result.args, result.kwargs = self.join.part(whole, place)

    def _added(self, results: Sequence[Node], weight: Node, bias: Node | None) -> Node:
        """Add the whole to the graph of ``results``, before the first of them."""
        tails = [_trace_back(result, len(self.tails[0])) for result in results]
        xs = [arguments(tail[0])[member.name] for member, tail in zip(self.group, tails, strict=True)]
        seen, *values = self._fakes()
        if self.join.views:
            weight.meta["val"] = seen
        first = min(results)
        known = iter(values)

        def add(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Node:
            node = first.graph.create_node("call_function", target, args, dict(kwargs))
            node.meta = {**tails[0][0].meta, "val": next(known)}
            return node

        with first.graph.inserting_before(first):
            whole: Node = self._applied(add, xs, weight, bias)
            return whole

    def _fakes(self) -> list[Tensor]:
        """Compute fake values of the joined weight, as it is read, and of all later nodes, in this order."""
        found: list[Tensor] = []

        def compute(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
            found.append(target(*args, **kwargs))
            return found[-1]

        with value_of(self.group[0].node).fake_mode:  # type: ignore[attr-defined]
            weight, bias = self.join.fake()
            self._applied(compute, [value_of(member.x) for member in self.group], weight, bias)
        return [weight, *found]

    def _applied(self, apply: Apply, xs: Sequence[Any], weight: Any, bias: Any) -> Any:
        whole = self.join.apply(apply, xs, weight, bias)
        for node in self.tails[0][1:]:
            whole = apply(operator_of(node), (whole, *node.args[1:]), node.kwargs)
        return whole


def _trace_back(result: Node, length: int) -> list[Node]:
    """Return a tail of this length, from its last node."""
    tail = [result]
    while len(tail) < length:
        tail.insert(0, tail[0].all_input_nodes[0])
    return tail


def concatenate(axis: int, *weights: Tensor) -> Tensor:
    return torch.cat(weights, axis)


def stack(*weights: Tensor) -> Tensor:
    return torch.stack(weights)
