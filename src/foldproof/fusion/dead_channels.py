"""Channels that are one number for all inputs, which are cut out of the operators that compute and that read them.

A convolution or linear whose row of weights is 0 gives its bias everywhere. A normalisation with a scale of 0 leaves
such rows once it is folded, and so does pruning. The *cut* follows the channels from there towards all readers: a
rectifier makes another number of the number, a view puts it elsewhere. A linear operator that reads it adds the number,
times its weights, to its own bias. Whatever needs the channel itself ends the plan with a reason.

The channels are constant for these weights alone, which is what the rewrite claims (`Plan.conditional`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.convolution import convolve_constant
from foldproof.fusion.affine import compress
from foldproof.fusion.affines import is_normalisation
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging.maps import LinearMap, find_rank, plan_edit, read_step
from foldproof.fusion.motion.averaging import AVERAGES, MAXIMA
from foldproof.fusion.motion.rule import find_combined_axes, find_sizes, run_on
from foldproof.fusion.plan import Plan
from foldproof.graph.nodes import (
    arguments,
    is_getitem,
    kind_of,
    listed,
    operator_node,
    operator_of,
    set_argument,
    short_name,
    value_readers,
)
from foldproof.operators import is_pointwise, is_repeatable
from foldproof.rewriting.constants import Constants, as_call
from foldproof.rewriting.edit import Edit
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import joined, taken, total

_SIZES = {"view": "size", "reshape": "shape", "expand": "size"}
"""Views with the size of each axis among their arguments, and the name of that argument."""
_VIEWS = frozenset({*_SIZES, "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "alias", "detach"})
_COPIES = frozenset({"clone", "contiguous", "dropout", "feature_dropout", "alpha_dropout"})
_AVERAGES = AVERAGES | {"mean", "sum"}
_MAXIMA = MAXIMA | {"amax"}


@dataclass(frozen=True)
class _Cut:
    """The places along ``axis`` of a value that are cut out of it; the others stay.

    ``held`` is the vector of the numbers there, and ``rows`` are the rows of the first operator that they come from.
    """

    axis: int
    size: int
    places: tuple[int, ...]
    rows: tuple[int, ...]
    held: Operand

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(sorted({*range(self.size)} - {*self.places}))


class _Needed(CannotFold):
    """Some of the channels are needed where they are, and the others are not."""

    def __init__(self, reason: str, rows: set[int]) -> None:
        super().__init__(reason)
        self.rows = rows


class DeadChannels:
    """W₂·f(W₁x + b₁) + b₂ = W₂[:, k]·f(W₁[k]·x + b₁[k]) + (b₂ + W₂[:, d]·f(b₁[d])), if W₁[d] = 0; k are the others.

    Both are convolutions or linears, and f consists of functions of each element alone, views, concatenations, pooling
    and depthwise convolutions. Numbers other than 0 can't go where zeros are padded beside them. All readers have to be
    such operators. This holds for these weights only, and has to be requested. Normalisations are to be folded before,
    by the pass ``batch_norm``.
    """

    id = "dead_channels"
    fires: tuple[Fires, ...] = examples.dead_fires
    declines: tuple[Declines, ...] = examples.dead_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for a convolution or linear."""
        return find_rank(node, constants) is not None and kind_of(node) != "embedding" and not constants.holds(node)

    def plan(self, node: Node, constants: Constants) -> Plan | None:
        """Plan to cut the channels that ``node`` computes without its input; None if there are none.

        Raises:
            CannotFold: they can't be cut.
        """
        rank = find_rank(node, constants)
        assert rank is not None
        try:
            first = read_step(node, rank, constants)
        except CannotFold:  # its weight is no constant
            return None
        dead = find_dead(first, constants)
        if not bool(dead.any()) or len(dead) == 1:
            return None
        try:
            return self._plan_any(node, first, dead, constants)
        except CannotFold as refusal:
            told = f"{int(dead.sum())} of its {len(dead)} channels are the same numbers for all inputs, and stay"
            raise CannotFold(f"{told}: {refusal}", refusal.hint) from None

    def _plan_any(self, node: Node, first: LinearMap, dead: Tensor, constants: Constants) -> Plan:
        rows = _alike_in_groups(first, dead)
        try:
            return _Walk(node, first, rows, constants).plan(self.id)
        except _Needed as needed:
            dead = dead.clone()
            dead[list(needed.rows)] = False
            if not bool(dead.any()):
                raise
        return self._plan_any(node, first, dead, constants)


def find_dead(this: LinearMap, constants: Constants) -> Tensor:
    """Return where the rows of a weight are 0."""
    return (constants.value(this.weight).flatten(1) == 0).all(1)


def _alike_in_groups(first: LinearMap, dead: Tensor) -> tuple[int, ...]:
    """Return rows of zeros, as many in each group; one row of each group has to stay.

    Raises:
        CannotFold: a group has none.
    """
    groups = dead.reshape(first.groups, -1)
    count = min(int(groups.sum(1).min()), groups.shape[1] - 1)
    if not count:
        raise CannotFold(f"not every one of its {first.groups} groups has some, and groups have to be of one size")
    rows = torch.arange(len(dead)).reshape(groups.shape)
    return tuple(int(row) for own, zero in zip(rows, groups) for row in own[zero][-count:])


class _Walk:
    """The way of the cut from the operator that computes the channels towards all readers."""

    def __init__(self, node: Node, first: LinearMap, rows: tuple[int, ...], constants: Constants) -> None:
        self.node, self.first, self.constants = node, first, constants
        axis = 1 if first.kernel else value_of(node).dim() - 1
        numbers = Expression(_biases, (first.weight, first.bias, rows))
        self.cuts = {node: _Cut(axis, first.shape[0], rows, rows, numbers)}
        self.edits: list[Edit] = []

    def plan(self, source: str) -> Plan:
        """Return the plan.

        Raises:
            CannotFold: something needs the channels.
        """
        cut = self.cuts[self.node]
        self._require_movable(self.node)
        for reader in self.node.graph.nodes:
            read = {x: self.cuts[x] for x in reader.all_input_nodes if x in self.cuts}
            if read:
                self._visit(reader, read)
        if not any(edit.wanted for edit in self.edits):
            raise CannotFold("nothing reads them")
        weight = Expression(take_rows, (self.first.weight, cut.kept), arranges=True)
        bias = None if self.first.bias is None else Expression(take_rows, (self.first.bias, cut.kept), arranges=True)
        new = replace(self.first, weight=weight, bias=bias, shape=(len(cut.kept), *self.first.shape[1:]))
        self.edits.append(_resizing(plan_edit(new, "", self.constants), self.node, cut))
        share = {x: len(cut.places) / cut.size for x, cut in self.cuts.items()}
        return Plan(source, [], edits=self.edits, moved=list(self.cuts), conditional=True, cut=share)

    def _visit(self, reader: Node, read: Mapping[Node, _Cut]) -> None:
        if reader.op != "call_function":
            raise CannotFold(f"{listed([reader])} reads them")
        if any(reader not in value_readers(x) for x in read):
            self._require_other_size(reader, read)
            return
        rank = find_rank(reader, self.constants)
        if rank is not None:
            [(x, cut)] = read.items()
            this = read_step(reader, rank, self.constants)
            self._require_channels(this, reader, x, cut)
            if this.groups == this.inputs > 1:
                self._pass(reader, self._through_depthwise(this, reader, cut))
            else:
                self._take_in(this, reader, cut)
            return
        for rule in (_through_tuple, _through_pointwise, _through_joining, self._through_pool, _through_views):
            found = rule(reader, read)
            if found is not None:
                resize = partial(_set_size, found.axis, len(found.kept)) if kind_of(reader) in _SIZES else _nothing
                self.edits.append(_resizing(Edit("", reader, (), resize), reader, found))
                self._pass(reader, found)
                return
        hint = ""
        if is_normalisation(reader, self.constants):
            hint = "fold normalisations before, by the pass 'batch_norm'"
        raise CannotFold(f"{reader.name} ({short_name(reader)}) reads them", hint)

    def _pass(self, reader: Node, cut: _Cut) -> None:
        self._require_movable(reader)
        self.cuts[reader] = cut

    def _require_movable(self, node: Node) -> None:
        if self.constants.is_written(node):
            raise CannotFold(f"{node.name} is changed in place")

    def _require_other_size(self, reader: Node, read: Mapping[Node, _Cut]) -> None:
        """Check that a reader of sizes does not read that of the channels."""
        unread = is_getitem(reader) and not reader.users
        [(x, cut)] = read.items()
        if not unread and not (
            kind_of(reader) == "sym_size" and arguments(reader)["dim"] % value_of(x).dim() != cut.axis
        ):
            raise CannotFold(f"{reader.name} ({short_name(reader)}) reads their number")

    def _require_channels(self, this: LinearMap, reader: Node, x: Node, cut: _Cut) -> None:
        axis = 1 if this.kernel else value_of(x).dim() - 1
        if this.x is not x or cut.axis != axis:
            raise CannotFold(f"{reader.name} ({short_name(reader)}) does not read them as its channels")
        if any(this.padding):
            self._require_zeros(cut, f"{reader.name} ({short_name(reader)}) pads them with zeros, which they are not")

    def _require_zeros(self, cut: _Cut, otherwise: str) -> None:
        held = self.constants.value(cut.held)
        needed = {row for row, number in zip(cut.rows, held.tolist(), strict=True) if number}
        if needed:
            raise _Needed(otherwise, needed)

    def _through_depthwise(self, this: LinearMap, reader: Node, cut: _Cut) -> _Cut:
        """Cut a depthwise convolution, each of whose channels depends on one channel alone."""
        times = this.shape[0] // this.groups
        kept = _repeated(cut.kept, times)
        weight = Expression(take_rows, (this.weight, kept), arranges=True)
        bias = None if this.bias is None else Expression(take_rows, (this.bias, kept), arranges=True)
        new = replace(this, weight=weight, bias=bias, shape=(len(kept), *this.shape[1:]), groups=len(cut.kept))
        places = _repeated(cut.places, times)
        held = Expression(_biases, (this.weight, this.bias, places))
        moved = Expression(convolve_constant, (Expression(take_rows, (this.weight, places)), cut.held, len(cut.places)))
        rows = tuple(row for row in cut.rows for _ in range(times))
        found = _Cut(cut.axis, this.shape[0], places, rows, total(held, moved))
        self.edits.append(_resizing(plan_edit(new, "linear operator", self.constants), reader, found))
        return found

    def _take_in(self, this: LinearMap, reader: Node, cut: _Cut) -> None:
        """Let a linear operator add the numbers, times its weights, to its bias."""
        own = cut.size // this.groups
        counts = {sum(place // own == group for place in cut.places) for group in range(this.groups)}
        if len(counts) > 1:
            raise CannotFold(
                f"not every one of the {this.groups} groups of {reader.name} reads as many of them, and groups have to"
                " be of one size"
            )
        weight = Expression(take_inputs, (this.weight, cut.kept, this.groups), arranges=True)
        bias = this.bias
        if bool(self.constants.value(cut.held).any()):
            unread = Expression(take_inputs, (this.weight, cut.places, this.groups))
            bias = total(bias, Expression(convolve_constant, (unread, cut.held, this.groups)))
        shape = (this.shape[0], len(cut.kept) // this.groups, *this.shape[2:])
        edit = plan_edit(replace(this, weight=weight, bias=bias, shape=shape), "linear operator", self.constants)
        self.edits.append(edit)

    def _through_pool(self, reader: Node, read: Mapping[Node, _Cut]) -> _Cut | None:
        """Return the cut of an average or maximum within channels."""
        call = operator_node(reader)
        over_all = kind_of(call) in ("mean", "sum") and not arguments(call).get("dim")
        if kind_of(call) not in _AVERAGES | _MAXIMA or over_all:
            return None
        [cut] = read.values()
        axes = find_combined_axes(call, call.all_input_nodes[0])
        if cut.axis in axes:
            raise CannotFold(f"{reader.name} ({short_name(call)}) combines them with others")
        if kind_of(call) in _AVERAGES:
            ones = run_on(reader, lambda operand: torch.ones(find_sizes(operand), dtype=torch.float64))
            certain = arguments(call).get("divisor_override") is None and kind_of(call) != "sum"
            if not certain or not torch.allclose(ones, torch.ones_like(ones), rtol=0, atol=1e-6):
                self._require_zeros(cut, f"the weights of {reader.name} ({short_name(call)}) do not add up to 1")
        if isinstance(reader.meta["val"], Tensor) and value_of(reader).dim() < value_of(call.all_input_nodes[0]).dim():
            return replace(cut, axis=cut.axis - sum(axis < cut.axis for axis in axes))
        return cut


def _through_tuple(reader: Node, read: Mapping[Node, _Cut]) -> _Cut | None:
    """Return the cut of the maxima that come together with their places."""
    if not is_getitem(reader):
        return None
    [cut] = read.values()
    if reader.args[1] != 0:
        raise CannotFold(f"{reader.name} reads their places")
    return cut


def _through_pointwise(reader: Node, read: Mapping[Node, _Cut]) -> _Cut | None:
    """Return the cut of a function of each element, all of whose operands are cut alike."""
    operator = operator_of(reader)
    if operator is None or not (is_pointwise(operator) and is_repeatable(operator, arguments(reader))):
        return None
    first = next(iter(read))
    cut = read[first]
    for x in reader.all_input_nodes:
        alike = x in read and (read[x].axis, read[x].places) == (cut.axis, cut.places)
        if not alike or value_of(x).shape != value_of(first).shape:
            raise CannotFold(f"{reader.name} ({short_name(reader)}) reads {x.name} beside them, which is not cut alike")
    call, operands = as_call(reader)
    return replace(cut, held=Expression(call, tuple(read[x].held for x in operands)))


def _through_joining(reader: Node, read: Mapping[Node, _Cut]) -> _Cut | None:
    """Return the cut of values that are joined along their channels."""
    if kind_of(reader) not in ("cat", "concat"):
        return None
    parts = arguments(reader)["tensors"]
    axis = arguments(reader)["dim"] % value_of(reader).dim()
    if any(cut.axis != axis for cut in read.values()):
        raise CannotFold(f"{reader.name} ({short_name(reader)}) joins them along another axis")
    start, places, held, rows = 0, list[int](), list[Operand](), list[int]()
    for part in parts:
        if part in read:
            places += [start + place for place in read[part].places]
            rows += read[part].rows
            held.append(read[part].held)
        start += int(value_of(part).shape[axis])
    counts = [len(read[part].places) for part in parts if part in read]
    return _Cut(axis, start, tuple(places), tuple(rows), joined(held, counts, 0.0))


def _through_views(reader: Node, read: Mapping[Node, _Cut]) -> _Cut | None:
    """Return the cut of a copy, or of a view that keeps the channels on one axis."""
    operator = operator_of(reader)
    if operator is None or kind_of(reader) not in _VIEWS | _COPIES or not is_repeatable(operator, arguments(reader)):
        return None
    [(x, cut)] = read.items()
    shape = [1] * value_of(x).dim()
    shape[cut.axis] = cut.size
    numbers = compress(
        run_on(reader, lambda _: torch.arange(cut.size).reshape(shape).expand(find_sizes(x)).contiguous())
    )
    axes = [axis for axis, size in enumerate(numbers.shape) if size > 1]
    if len(axes) != 1:
        raise CannotFold(f"{reader.name} ({short_name(reader)}) spreads them over several axes")
    at = {place: i for i, place in enumerate(cut.places)}
    found = [(new, at[old]) for new, old in enumerate(numbers.flatten().tolist()) if old in at]
    index = torch.tensor([i for _, i in found])
    places, rows = tuple(new for new, _ in found), tuple(cut.rows[i] for _, i in found)
    return _Cut(axes[0], numbers.numel(), places, rows, taken(cut.held, index, 0.0))


def _resizing(edit: Edit, node: Node, cut: _Cut) -> Edit:
    """Return an edit that also sets the sizes of the node's value."""
    value = node.meta["val"]
    new = tuple(_cut_value(part, cut) for part in value) if isinstance(value, (tuple, list)) else _cut_value(value, cut)
    return replace(edit, install=partial(_install_resized, edit.install, new))


def _cut_value(value: Any, cut: _Cut) -> Tensor:
    with value.fake_mode, torch.no_grad():
        return torch.empty_like(value.narrow(cut.axis, 0, len(cut.kept)))


def _install_resized(install: Callable[[Node, Mapping[str, Node]], None], value: Any, node: Node, new: Any) -> None:
    install(node, new)
    node.meta["val"] = value


def _set_size(axis: int, size: int, node: Node, new: Mapping[str, Node]) -> None:
    name = _SIZES[kind_of(node)]
    sizes = list(arguments(node)[name])
    if sizes[axis] != -1:
        sizes[axis] = size
    set_argument(node, name, sizes)


def _nothing(node: Node, new: Mapping[str, Node]) -> None:
    """Change nothing."""


def _repeated(places: tuple[int, ...], times: int) -> tuple[int, ...]:
    return tuple(place * times + i for place in places for i in range(times))


def _biases(weight: Tensor, bias: Tensor | None, rows: tuple[int, ...]) -> Tensor:
    """Return the entries of a bias, which are zeros if there is none."""
    return weight.new_zeros(len(rows)) if bias is None else take_rows(bias, rows)


def take_rows(x: Tensor, rows: tuple[int, ...]) -> Tensor:
    return _laid_out_like(x, x[torch.tensor(rows, device=x.device)])


def take_inputs(weight: Tensor, places: tuple[int, ...], groups: int) -> Tensor:
    """Return the weight of some input channels alone, of which as many are in each group."""
    outputs, own = weight.shape[0] // groups, weight.shape[1]
    found = torch.tensor(places, device=weight.device).reshape(groups, -1) % own
    return _laid_out_like(weight, torch.cat([rows[:, index] for rows, index in zip(weight.split(outputs), found)]))


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _laid_out_like(x: Tensor, part: Tensor) -> Tensor:
    """Return a part of a weight with its channels last if the weight has them last, since results follow weights."""
    last = _CHANNELS_LAST.get(x.dim())
    if last is None or x.is_contiguous() or not x.is_contiguous(memory_format=last):
        return part
    return part.contiguous(memory_format=last)
