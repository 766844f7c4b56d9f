"""Operators that arrange elements."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.motion.rule import Affines, find_sizes, run_on
from foldproof.graph.nodes import arguments, is_getitem, kind_of, operator_node, operator_of
from foldproof.operators import is_functional
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.expression import Operand
from foldproof.rewriting.refusal import CannotFold, next_training
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import UNREAD, joined

_VIEWS = """
    view reshape flatten unflatten permute transpose t numpy_T mT movedim swapaxes squeeze unsqueeze expand expand_as
    view_as reshape_as broadcast_to _reshape_alias atleast_1d atleast_2d atleast_3d diagonal unfold alias detach
"""
_PARTS = """
    slice narrow select index index_select split split_with_sizes chunk tensor_split unbind unsafe_split unsafe_chunk
    unsafe_split_with_sizes
"""
_WHOLES = """
    cat concat stack hstack vstack clone contiguous lift_fresh _to_copy to dropout alpha_dropout feature_dropout repeat
    tile repeat_interleave flip roll im2col pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d
"""
_PADDING = next_training("normalise after the padding, or pad by reflection or replication")

SELECTIONS = frozenset((_VIEWS + _PARTS + _WHOLES).split())


class Selection:
    """f(scale·x + shift) = scale'·f(x) + shift', where f arranges elements: each of f(x) is one of x, or a zero.

    For views, transpositions, slices, concatenations, copies, repetitions, and padding by zeros, reflection or
    replication. The origin of each element is found by running the operator on element numbers. Zeros stay zeros under
    a scale, and can't take a shift.
    """

    id = "selection"
    conditional = False
    kinds = SELECTIONS
    fires: tuple[Fires, ...] = examples.selection_fires
    declines: tuple[Declines, ...] = examples.selection_declines

    def takes(self, node: Node) -> bool:
        if is_getitem(node):
            return (
                isinstance(node.args[0], Node)
                and isinstance(node.args[0].meta.get("val"), (list, tuple))
                and (kind_of(node.args[0]) in self.kinds)
            )
        return kind_of(node) in self.kinds and isinstance(node.meta.get("val"), torch.Tensor)

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        sources = _Sources(node, constants)
        channels = affine.channels.expand(sources.places.shape)
        if affine.shift is not None and sources.has_zeros:
            raise CannotFold(f"{node.name} pads with zeros, which would have to be shifted too", _PADDING)
        found = {}
        for operand, first in sources.first.items():
            shape = find_sizes(operand)
            at = sources.places - first
            inside = (at >= 0) & (at < shape.numel())
            chosen = torch.full((shape.numel(),), UNREAD)
            chosen[at[inside]] = channels[inside]
            if not torch.equal(chosen[at[inside]], channels[inside]):
                raise CannotFold(f"{node.name} reads one element of {operand.name} for several channels")
            found[operand] = require_static(affine.on(chosen.reshape(shape)), operand, node)
        return found

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        sources = _Sources(node, constants)
        channels = torch.zeros(sources.places.shape, dtype=torch.int64)
        scales: list[Operand] = [None]
        shifts: list[Operand] = [None]
        counts = [1]  # channel 0 has the identity: other operands, and zeros
        for operand, first in sources.first.items():
            affine = carried.get(operand)
            at = sources.places - first
            inside = (at >= 0) & (at < find_sizes(operand).numel())
            if affine is None or not bool(inside.any()):
                continue
            all_channels = affine.channels.expand(find_sizes(operand)).reshape(-1)
            channels[inside] = all_channels[at[inside]] + sum(counts)
            scales.append(affine.scale)
            shifts.append(affine.shift)
            counts.append(affine.count)
        moved = [affine for affine in carried.values() if affine.shift is not None]
        if moved and sources.has_zeros:
            raise CannotFold(f"{node.name} pads with zeros, which have not been shifted", _PADDING)
        if len(counts) == 2 and not bool((channels == 0).any() and not sources.has_zeros):
            channels = torch.where(channels == 0, UNREAD, channels - 1)  # one operand: its own numbering
            return require_static(Affine(channels, counts[1], scales[1], shifts[1]).on(channels), node, node)
        scale = joined(scales, counts, 1.0)
        shift = joined(shifts, counts, 0.0)
        return require_static(Affine(channels, sum(counts), scale, shift).on(channels), node, node)


def read_elements(reader: Node, node: Node, constants: Constants) -> Tensor:
    """Return the elements of ``node`` that ``reader`` reads, as booleans: some, for an operator that arranges elements.

    Raises:
        CannotFold: they depend on the program's input.
    """
    shape = find_sizes(node)
    if not Selection().takes(reader):
        return torch.ones(shape, dtype=torch.bool)
    sources = _Sources(reader, constants)
    at = sources.places - sources.first[node]
    found = torch.zeros(shape.numel(), dtype=torch.bool)
    found[at[(at >= 0) & (at < shape.numel())]] = True
    return found.reshape(shape)


class _Sources:
    """The origin of each element of a selection.

    ``first`` maps the operands to the number of their first element. ``places`` holds the number of the origin for each
    element of the result, 0 for a zero.
    """

    def __init__(self, node: Node, constants: Constants) -> None:
        target = operator_node(node)
        self._check(target, constants)
        self.first: dict[Node, int] = {}
        size = 1

        def numbered(operand: Node) -> Tensor:
            nonlocal size
            if not value_of(operand).is_floating_point():
                return constants.integers(operand)
            shape = find_sizes(operand)
            if operand not in self.first:
                self.first[operand] = size
                size += shape.numel()
            start = self.first[operand]
            return torch.arange(start, start + shape.numel(), dtype=torch.float64).reshape(shape)

        self.places = run_on(node, numbered).to(torch.int64)
        if kind_of(target) in ("expand_as", "view_as", "reshape_as"):
            self.first = {operand: at for operand, at in self.first.items() if operand is target.args[0]}
        self.has_zeros = bool((self.places == 0).any())

    @staticmethod
    def _check(target: Node, constants: Constants) -> None:
        given = arguments(target)
        kind = kind_of(target)
        operator = operator_of(target)
        if operator is not None and not is_functional(operator, given):
            raise CannotFold(f"{target.name} drops elements at random: call model.eval()")
        if (
            kind in ("constant_pad_nd", "pad")
            and given.get("value") not in (None, 0)
            and given.get("mode")
            in (
                None,
                "constant",
            )
        ):
            raise CannotFold(f"{target.name} pads with {given['value']}")
        if kind in ("_to_copy", "to") and value_of(target).dtype != value_of(target.all_input_nodes[0]).dtype:
            raise CannotFold(f"{target.name} changes the dtype")
        indices = [x for x in target.all_input_nodes if not _is_float(x)]
        if not all(isinstance(x.meta.get("val"), torch.SymInt) or constants.holds(x) for x in indices):
            raise CannotFold(f"which elements {target.name} takes depends on the program's input")


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def require_static(affine: Affine, node: Node, through: Node) -> Affine:
    """Return the affine if its channels lie along axes of fixed size only; at other sizes they might lie differently.

    Raises:
        CannotFold: they lie along a dynamic dimension.
    """
    for axis in affine.axes:
        if isinstance(value_of(node).shape[axis], torch.SymInt):
            raise CannotFold(f"through {through.name}, its channels lie along a dimension of dynamic size")
    return affine
