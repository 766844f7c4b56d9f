"""Affines that are moved through averages, maxima, sums and products where they may not, or come out wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Example, chain, functional
from foldproof.fusion.motion import averaging, pointwise
from foldproof.fusion.motion.averaging import AVERAGES, MAXIMA, Averaging
from foldproof.fusion.motion.pointwise import Negation, Product, Rectifier, Sum
from foldproof.fusion.motion.rule import Affines
from foldproof.fusion.plan import Planner
from foldproof.graph.nodes import kind_of
from foldproof.rewriting.constants import Constants
from mutants.mutant import (
    Mutant,
    Patch,
    argument,
    around,
    exported,
    flipped,
    mutant,
    nothing,
    patch,
    unscaled,
    unshifted,
)

_norm, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_linear, _conv = partial(nn.Linear, 3, 6), partial(nn.Conv2d, 3, 6, 3)
_image = (2, 3, 7, 8)
_vector = partial(torch.randn, 6)
negated = exported(functional(((4, 3),), lambda m, x: m.n(-m.a(x)), a=_linear, n=_norm))
rotated = exported(
    functional(
        ((2, 5, 6),),
        lambda m, x: (y := x.sin() * m.k) * m.c + torch.cat([-y[..., 3:], y[..., :3]], -1) * m.s,
        k=_vector,
        c=lambda: torch.randn(5, 6),
        s=lambda: torch.randn(5, 6),
    )
)


def _two(function: Callable[[Any, Tensor, Tensor], Tensor], **parts: Any) -> Callable[[], Example]:
    """A function of the six features of two linear operators."""
    return functional(
        ((4, 3), (4, 3)), lambda m, x, y: function(m, m.a(x), m.b(y)), a=_linear, b=_linear, n=_norm, **parts
    )


def _reader(function: Callable[..., Tensor], features: int = 6, **parts: Any) -> Callable[[], Example]:
    """A linear operator that reads a function of two inputs."""
    return functional(
        ((4, 6), (4, 6)), lambda m, x, y: m.a(function(m, x, y)), a=partial(nn.Linear, features, 3), n=_norm, **parts
    )


counted = exported(chain(_image, _conv, partial(nn.AvgPool2d, 3, padding=1), _norm2))
divided_by_two = exported(chain(_image, _conv, partial(nn.AvgPool2d, 2, divisor_override=2), _norm2))
counted_before = exported(chain((2, 6, 7, 8), _norm2, partial(nn.AvgPool2d, 3, padding=1), partial(nn.Conv2d, 6, 3, 3)))
summed = exported(functional((_image,), lambda m, x: m.n(m.a(x).sum((2, 3))), a=_conv, n=_norm))
summed_before = exported(
    functional(((2, 6, 7, 8),), lambda m, x: m.a(m.n(x).sum((2, 3))), a=partial(nn.Linear, 6, 3), n=_norm2)
)
mean = exported(functional((_image,), lambda m, x: m.n(m.a(x).mean((2, 3))), a=_conv, n=_norm))
mean_before = exported(
    functional(((2, 6, 7, 8),), lambda m, x: m.a(m.n(x).mean((2, 3))), a=partial(nn.Linear, 6, 3), n=_norm2)
)
# Pooling that leaves as many places as there were, over the axis of the channels.
_smooth = partial(nn.functional.avg_pool1d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_dilate = partial(nn.functional.max_pool1d, kernel_size=3, stride=1, padding=1)
averaged_channels = exported(
    functional(((2, 5, 3),), lambda m, x: m.n(_smooth(m.a(x)).transpose(1, 2)), a=_linear, n=_norm)
)
averaged_channels_before = exported(
    functional(((2, 6, 5),), lambda m, x: m.a(_smooth(m.n(x).transpose(1, 2))), a=partial(nn.Linear, 6, 3), n=_norm)
)
largest_channels = exported(
    functional(((2, 5, 3),), lambda m, x: _dilate(m.a(x)) * m.k, a=_linear, k=lambda: torch.arange(1.0, 7.0))
)
largest = exported(chain(_image, _conv, partial(nn.MaxPool2d, 2), _norm2))
largest_of_all = exported(functional((_image,), lambda m, x: m.n(m.a(x).amax((2, 3))), a=_conv, n=_norm))
largest_before = exported(
    chain((2, 6, 8, 8), nn.ReLU, _norm2, partial(nn.MaxPool2d, 2), nn.Flatten, partial(nn.Linear, 96, 3))
)
residual = exported(_two(lambda m, x, y: m.n(x + y)))
difference = exported(_two(lambda m, x, y: m.n(x - y)))
weighted = exported(_two(lambda m, x, y: m.n(torch.add(x, y, alpha=3))))
doubled = exported(_two(lambda m, x, y: m.n(x + x)))
squared = exported(_two(lambda m, x, y: x * x * m.k, k=_vector))
gate = exported(_two(lambda m, x, y: x * y.sigmoid() * m.k, k=_vector))
product = exported(_two(lambda m, x, y: m.n(x * y)))
scaled_product = exported(_two(lambda m, x, y: x * y * m.k, k=_vector))
quotient = exported(_two(lambda m, x, y: x / y * m.k, k=_vector))
larger = exported(_two(lambda m, x, y: m.n(torch.maximum(x, y))))
scores = exported(
    functional(
        ((2, 6, 3),), lambda m, x: torch.bmm(m.a(x), m.b(x).transpose(1, 2)) * m.k, a=_linear, b=_linear, k=_vector
    )
)
one_gate = exported(
    functional(
        ((2, 6, 3),),
        lambda m, x: m.n(m.a(x) + m.b(x)),
        a=partial(nn.Conv1d, 6, 6, 1),
        b=partial(nn.Conv1d, 6, 1, 1),
        n=_norm,
    )
)
shifted_before = exported(_reader(lambda m, x, y: x + m.k + y, k=_vector))
subtracted_before = exported(_reader(lambda m, x, y: x - (y.relu() + m.k), k=_vector))
weighted_before = exported(_reader(lambda m, x, y: torch.add(x, y.relu() + m.k, alpha=3), k=_vector))
one_scaled_before = exported(_reader(lambda m, x, y: x + m.n(y)))
both_before = exported(_reader(lambda m, x, y: (z := m.n(x)) + z.flip(0)))
scaled_differently = exported(_reader(lambda m, x, y: (z := x * m.k) + z.flip(1), k=_vector))
shifts_of_both = exported(_reader(lambda m, x, y: (z := x + m.k) + z.flip(1), k=_vector))
doubled_before = exported(_reader(lambda m, x, y: (z := x + m.k) + z, k=_vector))
gated_before = exported(_reader(lambda m, x, y: m.n(x) * y))
squared_before = exported(_reader(lambda m, x, y: (z := x * m.k) * z, k=_vector))
multiplied_before = exported(_reader(lambda m, x, y: (z := x * m.k) * z.flip(0), k=_vector))
rectified = exported(functional((_image,), lambda m, x: m.a(x).relu() * m.k, a=_conv, k=lambda: torch.randn(6, 1, 1)))
rectified_norm = exported(chain(_image, _conv, nn.ReLU, _norm2))
rectified_before = exported(_reader(lambda m, x, y: (x * m.k).relu(), k=_vector))
shifted_rectified_before = exported(_reader(lambda m, x, y: (x + m.k).relu(), k=_vector))
leaky = exported(
    functional(
        (_image,),
        lambda m, x: nn.functional.leaky_relu(m.a(x), 0.2) * m.k,
        a=_conv,
        k=lambda: torch.randn(6, 1, 1),
    )
)


def _curve(function: Callable[[Tensor], Tensor]) -> Callable[[], Example]:
    """A function of six features, times positive numbers."""
    return functional(((4, 3),), lambda m, x: function(m.a(x)) * m.k, a=_linear, k=lambda: torch.rand(6) + 0.5)


gelu, tanh, limited = (
    exported(_curve(nn.functional.gelu)),
    exported(_curve(torch.tanh)),
    exported(_curve(nn.Hardtanh(-0.2, 0.2))),
)
squares = exported(_curve(torch.square))
lower_rank = exported(
    functional(((6, 6), (6, 6, 6)), lambda m, x, y: m.a(x * m.k * y), a=partial(nn.Conv1d, 6, 3, 1), k=_vector)
)


def no_guard(name: str) -> Patch:
    return patch(averaging, name, nothing)


def up(home: Any, wrong: Callable[[dict[Node, Affine], Node, Affine], Any]) -> Patch:
    """Change the affines that the operands need."""

    def broken(original: Any, self: Any, node: Node, affine: Affine, constants: Constants, side: int) -> Any:
        found = original(self, node, affine, constants, side)
        return wrong(found, node, affine) or found

    return around(home, "up", broken)


def down(home: Any, wrong: Callable[[Affines, Node], Affine]) -> Patch:
    return patch(home, "down", lambda self, node, carried, constants: wrong(carried, node))


def changed(which: int, wrong: Callable[[Affine], Affine]) -> Callable[..., dict[Node, Affine]]:
    """One of the operands needs something else."""
    return lambda found, node, affine: {
        operand: wrong(one) if place == which else one for place, (operand, one) in enumerate(found.items())
    }


def the_first(carried: Affines, *_: object) -> Affine:
    return next(iter(carried.values()))


def without_second(found: dict[Node, Affine], *_: object) -> dict[Node, Affine]:
    return dict(list(found.items())[:1])


def narrowed(node: Node, operand: Node, affine: Affine) -> Affine:
    """The channels of a broadcast operand are those of its first element."""
    shape = operand.meta["val"].shape
    channels = affine.channels
    for axis, size in enumerate(shape):
        if size == 1:
            channels = channels.narrow(axis, 0, 1)
    return affine.on(channels)


def only_one_checked(node: Node, affine: Affine, constants: Constants) -> None:
    """The sign of the last scale stands for all."""
    if affine.scale is not None and constants.value(affine.scale).reshape(-1)[-1] < 0:
        nothing()


def itself(self: Any, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
    return {node.all_input_nodes[0]: affine}


def itself_unshifted(self: Any, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
    return {node.all_input_nodes[0]: unshifted(affine)}


def takes(home: Any, *kinds: str) -> Patch:
    return around(home, "takes", lambda original, self, node: original(self, node) or kind_of(node) in kinds)


def spread_at_the_end(node: Node, affine: Affine) -> Affine:
    missing = node.meta["val"].dim() - affine.channels.dim()
    return affine.on(affine.channels.reshape([*affine.channels.shape, *[1] * missing]))


no_weights = patch(Averaging, "_check_weights", nothing)
no_sign = patch(pointwise, "require_no_negative", nothing)
no_rectifier_guard = patch(Rectifier, "_check", nothing)


def rectifies(*kinds: str) -> Patch:
    return patch(Rectifier, "kinds", Rectifier.kinds | set(kinds))


no_product_guard = patch(Product, "_check", nothing)

MUTANTS: dict[str, Mutant] = {
    # averages
    "padding is counted": mutant(counted, no_weights),
    "padding is counted, on the way down": mutant(counted_before, no_weights),
    "divided by another number": mutant(divided_by_two, no_weights),
    "a sum is an average": mutant(summed, no_weights),
    "a sum is an average, on the way down": mutant(summed_before, no_weights),
    "channels are averaged": mutant(averaged_channels, no_guard("require_constant_along")),
    "channels are averaged, on the way down": mutant(averaged_channels_before, no_guard("require_constant_along")),
    "no axes are combined": mutant(averaged_channels, patch(averaging, "find_combined_axes", lambda node, x: [])),
    "other axes are combined": mutant(
        averaged_channels_before, patch(averaging, "find_combined_axes", lambda node, x: [1])
    ),
    "a mean loses the shift": mutant(mean, up(Averaging, changed(0, unshifted))),
    "a mean loses the scale": mutant(mean, up(Averaging, changed(0, unscaled))),
    "a mean turns the channels around": mutant(mean, up(Averaging, changed(0, flipped))),
    "axes are lost in reverse": mutant(
        mean_before, around(averaging, "_drop_axes", lambda original, *a: flipped(original(*a)))
    ),
    "axes come back in reverse": mutant(
        mean, around(averaging, "_restore_axes", lambda original, *a: flipped(original(*a)))
    ),
    "max pooling is an average": mutant(largest, patch(Averaging, "pools", AVERAGES | MAXIMA)),
    "max pooling is an average, on the way down": mutant(largest_before, patch(Averaging, "pools", AVERAGES | MAXIMA)),
    "the largest is a mean": mutant(largest_of_all, patch(Averaging, "reductions", frozenset({"mean", "amax"}))),
    # maxima
    "negative scales": mutant(largest, no_guard("require_no_negative")),
    "negative scales, on the way down": mutant(largest_before, no_guard("require_no_negative")),
    "negative scales of the largest": mutant(largest_of_all, no_guard("require_no_negative")),
    "one sign is looked at": mutant(largest, patch(averaging, "require_no_negative", only_one_checked)),
    "the largest of several channels": mutant(largest_channels, no_guard("require_constant_along")),
    "no axes are compared": mutant(largest_channels, patch(averaging, "find_combined_axes", lambda node, x: [])),
    # rectifiers
    "negative scales are rectified": mutant(rectified, no_sign),
    "negative scales are rectified, on the way down": mutant(rectified_before, no_sign),
    "negative scales are rectified a little": mutant(leaky, no_sign),
    "a shift is rectified": mutant(rectified_norm, no_rectifier_guard),
    "a shift is rectified, on the way down": mutant(shifted_rectified_before, no_rectifier_guard),
    "gelu is a rectifier": mutant(gelu, rectifies("gelu")),
    "tanh is a rectifier": mutant(tanh, rectifies("tanh")),
    "a limit is a rectifier": mutant(limited, rectifies("hardtanh")),
    "a square is a rectifier": mutant(squares, rectifies("square", "pow")),
    # sums
    "a shift is not turned around": Mutant(
        negated, (patch(Negation, "_reverse", lambda self, affine: affine),), ("batch_norm",)
    ),
    "a negation of other channels": Mutant(
        negated, (around(Negation, "_reverse", lambda original, *a: flipped(original(*a))),), ("batch_norm",)
    ),
    "a factor of other features": mutant(
        rotated, around(Planner, "_plan_factor", lambda original, self, x, a, n: original(self, x, flipped(a), n))
    ),
    "a factor without the scale": mutant(
        rotated, around(Planner, "_plan_factor", lambda original, self, x, a, n: original(self, x, unscaled(a), n))
    ),
    "the second operand keeps its scale": mutant(residual, up(Sum, without_second)),
    "the first operand keeps its scale": mutant(residual, up(Sum, changed(0, unscaled))),
    "both operands are shifted": mutant(residual, up(Sum, lambda found, node, affine: dict.fromkeys(found, affine))),
    "no operand is shifted": mutant(residual, up(Sum, changed(0, unshifted))),
    "the subtrahend is shifted": mutant(
        difference,
        up(Sum, lambda found, node, affine: dict(zip(found, list(found.values())[::-1]))),
    ),
    "what is multiplied is shifted": mutant(
        weighted,
        up(Sum, lambda found, node, affine: dict(zip(found, list(found.values())[::-1]))),
    ),
    "one operand is turned around": mutant(residual, up(Sum, changed(1, flipped))),
    "a value is added to itself": mutant(doubled, patch(Sum, "up", itself)),
    "a value is added to itself, with no shift": mutant(doubled, patch(Sum, "up", itself_unshifted)),
    "an operand is broadcast along the channels": mutant(one_gate, patch(pointwise, "_broadcast", narrowed)),
    "a product is a sum": mutant(product, takes(Sum, "mul")),
    "a maximum is a sum": mutant(larger, takes(Sum, "maximum")),
    "a quotient is a sum": mutant(quotient, takes(Sum, "div")),
    "the sign of a difference is lost": mutant(
        subtracted_before, around(pointwise, "number", lambda original, x: original(abs(x)))
    ),
    "alpha is lost": mutant(weighted_before, around(pointwise, "number", lambda original, x: original(1))),
    "alpha is not looked at": mutant(weighted_before, argument(pointwise, alpha=1)),
    "a scaled operand stands for both": mutant(one_scaled_before, down(Sum, the_first)),
    "the first of two shifts": mutant(both_before, down(Sum, the_first)),
    "the first of two scales": mutant(scaled_differently, down(Sum, the_first)),
    "the first of two shifts, the other turned around": mutant(shifts_of_both, down(Sum, the_first)),
    "a doubled shift": mutant(doubled_before, down(Sum, the_first)),
    # products
    "a product is shifted": mutant(product, no_product_guard),
    "a gate is shifted, on the way down": mutant(gated_before, no_product_guard),
    "a value is multiplied by itself": mutant(squared, no_product_guard),
    "a value is multiplied by itself, on the way down": mutant(squared_before, no_product_guard),
    "both factors are scaled": mutant(
        scaled_product,
        patch(Product, "up", lambda self, node, affine, c, s: dict.fromkeys(node.all_input_nodes, affine)),
    ),
    "the channels of a gate are turned around": mutant(gate, up(Product, changed(0, flipped))),
    "both factors were scaled": mutant(multiplied_before, down(Product, the_first)),
    "each score has its scale": mutant(scores, no_product_guard),
    "a sum is a product": mutant(residual, takes(Product, "add"), patch(Sum, "takes", nothing), no_product_guard),
    "the divisor is scaled": mutant(
        quotient, takes(Product, "div"), patch(Product, "up", lambda self, node, affine, c, s: {node.args[1]: affine})
    ),
    "a difference is a product": mutant(
        difference, takes(Product, "sub"), patch(Sum, "takes", nothing), no_product_guard
    ),
    "channels spread along the first axes": mutant(lower_rank, patch(pointwise, "_spread_out", spread_at_the_end)),
}
