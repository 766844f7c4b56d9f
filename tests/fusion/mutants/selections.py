"""Selections whose elements get a wrong origin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Example, chain, functional
from foldproof.fusion.motion import selection
from foldproof.fusion.motion.rule import Affines
from foldproof.fusion.motion.selection import Selection, _Sources
from foldproof.graph.nodes import is_getitem, kind_of
from foldproof.rewriting.constants import Constants
from mutants.mutant import Mutant, Patch, around, exported, mutant, nothing, patch, unshifted

_norm, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_linear, _conv = partial(nn.Linear, 3, 6), partial(nn.Conv2d, 3, 6, 3)
_image = (2, 3, 7, 8)


def _places(function: Callable[[Tensor], Tensor]) -> Callable[[], Example]:
    """A convolution with as many places as channels, some selection, and a normalisation of six channels."""
    return functional(((2, 3, 6),), lambda m, x: m.n(function(m.a(x))).relu(), a=partial(nn.Conv1d, 3, 6, 1), n=_norm)


def _features(function: Callable[[Tensor], Tensor], features: int = 6) -> Callable[[], Example]:
    """A linear operator, some selection, and a normalisation of six features."""
    return functional(((4, 3),), lambda m, x: m.n(function(m.a(x))).relu(), a=partial(nn.Linear, 3, features), n=_norm)


transposed = exported(_places(lambda y: y.transpose(1, 2)))
permuted = exported(_places(lambda y: y.permute(0, 2, 1)))
turned = exported(_places(lambda y: y.movedim(2, 1)))
tokens = exported(functional(((2, 6, 3),), lambda m, x: m.n(m.a(x).transpose(1, 2)), a=_linear, n=_norm))
mirrored = exported(_features(lambda y: y.flip(1)))
rolled = exported(_features(lambda y: y.roll(2, 1)))
sliced = exported(_features(lambda y: y[:, 3:], 9))
strided = exported(_features(lambda y: y[:, ::2], 12))
narrowed = exported(_features(lambda y: y.narrow(1, 2, 6), 9))
halved = exported(_features(lambda y: y.chunk(2, 1)[1], 12))
unbound = exported(_features(lambda y: y.view(4, 6, 2).unbind(2)[1], 12))
selected = exported(_features(lambda y: y.view(4, 2, 6).select(1, 1), 12))
indexed = exported(_features(lambda y: y[:, [5, 0, 3, 1, 4, 2]]))
channels_shuffled = exported(
    functional((_image,), lambda m, x: m.n(nn.functional.channel_shuffle(m.a(x), 3)), a=_conv, n=_norm2)
)
two_joined = exported(
    functional(
        ((4, 3),),
        lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)),
        a=partial(nn.Linear, 3, 3),
        b=partial(nn.Linear, 3, 3),
        n=_norm,
    )
)
stacked = exported(
    functional(
        ((4, 3),),
        lambda m, x: m.n(torch.stack([m.a(x), m.b(x)], 1).flatten(1)),
        a=partial(nn.Linear, 3, 3),
        b=partial(nn.Linear, 3, 3),
        n=_norm,
    )
)
padded = exported(functional((_image,), lambda m, x: m.n(nn.functional.pad(m.a(x), (1, 1))), a=_conv, n=_norm2))
padded_by_ones = exported(
    functional(
        (_image,),
        lambda m, x: nn.functional.pad(m.a(x), (1, 1), value=1.0) * m.k,
        a=_conv,
        k=partial(torch.randn, 6, 1, 1),
    )
)
padded_before = exported(
    functional(
        (_image,),
        lambda m, x: m.a(nn.functional.pad(m.n(x), (1, 1))),
        a=_conv,
        n=partial(nn.BatchNorm2d, 3),
    )
)
padded_by_ones_before = exported(
    functional(
        (_image,),
        lambda m, x: m.a(nn.functional.pad(x * m.k, (1, 1), value=1.0)),
        a=_conv,
        k=partial(torch.randn, 3, 1, 1),
    )
)
spread = exported(
    functional(
        ((2, 6, 1),),
        lambda m, x: m.n(m.a(x).expand(2, 6, 6).transpose(1, 2)).relu(),
        a=partial(nn.Conv1d, 6, 6, 1),
        n=_norm,
    )
)
repeated = exported(
    functional(
        ((4, 3),),
        lambda m, x: m.a(x).repeat(1, 2) * m.k,
        a=_linear,
        k=partial(torch.randn, 12),
    )
)
tokens_before = exported(
    functional(((2, 6, 6),), lambda m, x: m.a(m.n(x).transpose(1, 2)), a=partial(nn.Linear, 6, 3), n=_norm)
)
transposed_before = exported(
    functional(((2, 6, 6),), lambda m, x: m.a(m.n(x).transpose(1, 2)), a=partial(nn.Conv1d, 6, 3, 1), n=_norm)
)
joined_before = exported(
    functional(((4, 6), (4, 6)), lambda m, x, y: m.a(torch.cat([y, m.n(x)], 1)), a=partial(nn.Linear, 12, 3), n=_norm)
)
rectified = exported(chain(_image, _conv, nn.ReLU, _norm2))
absolute = exported(_features(torch.abs))
softened = exported(_features(nn.functional.softplus))


def runs(wrong: Callable[[Node, list[Tensor], Tensor], Tensor], *kinds: str) -> Patch:
    """Operators of these kinds arrange ``operands`` otherwise than the ``result`` says."""

    def run_on(original: Any, node: Node, numbered: Callable[[Node], Tensor]) -> Tensor:
        result: Tensor = original(node, numbered)
        target = node.args[0] if is_getitem(node) else node
        assert isinstance(target, Node)
        if kind_of(target) not in kinds:
            return result
        return wrong(target, [numbered(x) for x in target.all_input_nodes], result)

    return around(selection, "run_on", run_on)


def in_order(node: Node, operands: list[Tensor], result: Tensor) -> Tensor:
    """The elements stay in their order, as in a view."""
    return operands[0].reshape(-1)[: result.numel()].reshape(result.shape)


def from_the_start(node: Node, operands: list[Tensor], result: Tensor) -> Tensor:
    """The first channels are taken."""
    return operands[0][:, : result.shape[1]]


def the_other_way(axis: int) -> Callable[..., Tensor]:
    return lambda node, operands, result: result.flip(axis)


def sources(wrong: Callable[[_Sources], None]) -> Patch:
    def init(original: Any, self: _Sources, *a: Any) -> None:
        original(self, *a)
        wrong(self)

    return around(_Sources, "__init__", init)


def places(wrong: Callable[[Tensor], Tensor]) -> Patch:
    return sources(lambda self: setattr(self, "places", wrong(self.places)))


def operands_exchanged(self: _Sources) -> None:
    self.first = dict(zip(self.first, list(self.first.values())[::-1]))


def one_operand_for_all(self: _Sources) -> None:
    self.places = (self.places - 1) % (self.places.max() // 2) + 1


class Agreeing:
    """torch, where all tensors are equal."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def equal(*_: Tensor) -> bool:
        return True


def also(*kinds: str) -> Patch:
    """Operators of these kinds are taken for selections."""
    return patch(Selection, "kinds", Selection.kinds | set(kinds))


def shifts_zeros(original: Any, self: Selection, node: Node, carried: Affines, constants: Constants) -> Affine:
    [(operand, affine)] = carried.items()
    moved: Affine = original(self, node, {operand: unshifted(affine)}, constants)
    return replace(moved, shift=affine.shift)


agreeing = patch(selection, "torch", Agreeing())
no_check = patch(_Sources, "_check", staticmethod(nothing))
zeros_for_ones = runs(lambda node, operands, result: nn.functional.pad(operands[0], (1, 1)), "pad", "constant_pad_nd")
no_zeros = sources(lambda self: setattr(self, "has_zeros", False))

MUTANTS: dict[str, Mutant] = {
    # arrangements
    "transpose is a view": mutant(transposed, runs(in_order, "transpose")),
    "permute is a view": mutant(permuted, runs(in_order, "permute")),
    "movedim is a view": mutant(turned, runs(in_order, "movedim")),
    "flip changes nothing": mutant(mirrored, runs(in_order, "flip")),
    "roll changes nothing": mutant(rolled, runs(in_order, "roll")),
    "roll the other way": mutant(rolled, runs(lambda n, x, result: x[0].roll(-2, 1), "roll")),
    "an index changes nothing": mutant(indexed, runs(in_order, "index")),
    "an index is its inverse": mutant(
        indexed, runs(lambda n, x, result: x[0][:, torch.tensor([1, 3, 5, 2, 4, 0])], "index")
    ),
    "channels are not shuffled": mutant(channels_shuffled, runs(in_order, "channel_shuffle", "native_channel_shuffle")),
    "a slice starts at 0": mutant(sliced, runs(from_the_start, "slice")),
    "a stride is 1": mutant(strided, runs(from_the_start, "slice")),
    "narrow starts at 0": mutant(narrowed, runs(from_the_start, "narrow", "slice")),
    "the wrong half": mutant(halved, runs(from_the_start, "chunk", "split")),
    "unbound along another axis": mutant(unbound, runs(lambda n, x, result: x[0].reshape(4, 2, 6)[:, 1], "unbind")),
    "selected along another axis": mutant(selected, runs(lambda n, x, result: x[0].reshape(4, 6, 2)[..., 1], "select")),
    "joined in reverse": mutant(two_joined, runs(lambda n, x, result: torch.cat(x[::-1], 1), "cat")),
    "stacked in reverse": mutant(stacked, runs(lambda n, x, result: torch.stack(x[::-1], 1), "stack")),
    "stacked on the next axis": mutant(stacked, runs(lambda n, x, r: torch.stack(x, 2).reshape(r.shape), "stack")),
    "transpose is a view, on the way down": mutant(transposed_before, runs(in_order, "transpose")),
    "joined in reverse, on the way down": mutant(joined_before, runs(lambda n, x, r: torch.cat(x[::-1], 1), "cat")),
    # where elements come from
    "places along the channels are reversed": mutant(tokens, places(lambda p: p.flip(1))),
    "places are one off": mutant(tokens, places(lambda p: p.roll(1, 1))),
    "places are one off, on the way down": mutant(tokens_before, places(lambda p: p.roll(1, 2))),
    "places of a transposed value": mutant(transposed, places(lambda p: p.transpose(1, 2))),
    "operands are exchanged": mutant(two_joined, sources(operands_exchanged)),
    "operands are exchanged, on the way down": mutant(joined_before, sources(operands_exchanged)),
    "one operand is taken for the other": mutant(two_joined, sources(one_operand_for_all), agreeing),
    # guards
    "zeros are shifted": mutant(padded, no_zeros),
    "zeros are shifted, on the way down": mutant(padded_before, around(Selection, "down", shifts_zeros)),
    "ones are taken for zeros": mutant(padded_by_ones, no_check, zeros_for_ones),
    "ones are taken for zeros, on the way down": mutant(padded_by_ones_before, no_check, zeros_for_ones),
    "one element on several channels": mutant(spread, agreeing),
    "one element on several channels, repeated": mutant(repeated, agreeing),
    "relu is a selection": mutant(rectified, also("relu")),
    "abs is a selection": mutant(absolute, also("abs")),
    "softplus, which of large numbers changes nothing": mutant(softened, also("softplus")),
}
