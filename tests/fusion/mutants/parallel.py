"""Convolutions that are added up wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.fusion import parallel
from foldproof.fusion.examples import functional
from foldproof.fusion.parallel import ParallelConvolutions
from mutants.mutant import Mutant, Patch, argument, around, decomposed, exported, mutant, patch

_conv = partial(nn.Conv2d, 6, 6)
_line = partial(nn.Conv1d, 6, 6)
_norm = partial(nn.BatchNorm2d, 6)
_shape = (2, 6, 7, 8)


def _branches(function: Callable[..., Any], shape: tuple[int, ...] = _shape, **parts: Any) -> Any:
    return exported(functional((shape,), function, **parts))


three_and_one = _branches(lambda m, x: m.a(x) + m.b(x), a=partial(_conv, 3, padding=1), b=partial(_conv, 1))
core_three_and_one = decomposed(three_and_one)
stand_and_lie = _branches(
    lambda m, x: m.a(x) + m.b(x), a=partial(_conv, 3, padding=1), b=partial(_conv, (3, 1), padding=(1, 0))
)
off_centre = _branches(lambda m, x: m.a(x) + m.b(x), a=partial(_conv, (5, 3), padding=(2, 1)), b=partial(_conv, 1))
even = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 8), a=partial(_line, 3, padding=1, stride=2), b=partial(_line, 2, stride=2)
)
dilated = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 9), a=partial(_line, 5, padding=4, dilation=2), b=partial(_line, 1)
)
other_dilation = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 9), a=partial(_line, 5, padding=2), b=partial(_line, 3, padding=2, dilation=2)
)
other_stride = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 3), a=partial(_line, 3, padding=1, stride=2), b=partial(_line, 2)
)
other_groups = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 9), a=partial(_line, 3, padding=1, groups=2), b=partial(_line, 1, groups=3)
)
same_padding = _branches(lambda m, x: m.a(x) + m.b(x), a=partial(_conv, 3, padding="same"), b=partial(_conv, 1))
identity = _branches(lambda m, x: m.a(x) + x, a=partial(_conv, 3, padding=1))
grouped_identity = _branches(lambda m, x: m.a(x) + x, (2, 6, 9), a=partial(_line, 3, padding=1, groups=3))
depthwise_identity = _branches(lambda m, x: m.a(x) + x, (2, 6, 9), a=partial(_line, 3, padding=1, groups=6))
normalised = _branches(lambda m, x: m.a(x) + m.n(x), a=partial(_conv, 3, padding=1), n=_norm)
normalised_without_bias = _branches(lambda m, x: m.a(x) + m.n(x), a=partial(_conv, 3, padding=1, bias=False), n=_norm)
scaled_places = _branches(
    lambda m, x: m.a(x) + x * m.k, (2, 6, 6), a=partial(_line, 3, padding=1), k=partial(torch.randn, 6)
)
weighted = _branches(
    lambda m, x: torch.add(m.a(x), m.b(x), alpha=3), a=partial(_conv, 3, padding=1), b=partial(_conv, 1)
)
read_elsewhere = _branches(
    lambda m, x: ((y := m.a(x)) + m.b(x), y), a=partial(_conv, 3, padding=1), b=partial(_conv, 1)
)
two_inputs = exported(
    functional(
        (_shape, _shape),
        lambda m, x, y: m.a(x) + m.b(y),
        a=partial(_conv, 3, padding=1),
        b=partial(_conv, 1),
    )
)
twice_the_same = _branches(lambda m, x: (y := m.a(x)) + y, a=partial(_conv, 3, padding=1))
chained = _branches(lambda m, x: m.a(y := m.b(x)) + y, a=partial(_conv, 3, padding=1), b=partial(_conv, 1))
product = _branches(lambda m, x: m.a(x) * m.b(x), a=partial(_conv, 3, padding=1), b=partial(_conv, 1))


def offset(wrong: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Patch:
    return around(parallel, "_find_offset", lambda original, *a: wrong(original(*a)))


def careless_offset(base: Any, other: Any, node: Any) -> tuple[int, ...]:
    """Kernels are put together in the middle, wherever their taps are."""
    return tuple((size - small) // 2 for size, small in zip(base.kernel, other.kernel))


def branch(wrong: Callable[[Any], Any]) -> Patch:
    return around(parallel, "_make_branch", lambda original, *a: wrong(original(*a)))


def inside(wrong: Callable[[Tensor, Tensor], Tensor]) -> Patch:
    """Other sums of a larger and a smaller kernel."""
    return around(
        parallel,
        "add_inside",
        lambda original, large, small, at: wrong(large, original(torch.zeros_like(large), small, at)),
    )


def diagonal(wrong: Callable[[Tensor, Tensor], Tensor]) -> Patch:
    """Other sums of a kernel and a diagonal one."""
    return around(
        parallel,
        "add_diagonal",
        lambda original, large, scale, *a: wrong(large, original(torch.zeros_like(large), scale, *a)),
    )


def first_input(terms: list[Any], constants: Any) -> Any:
    return terms[0].args[0]


def scaled_along_any_axis(original: Any, term: Any, x: Any, reader: Any, constants: Any) -> Any:
    step = parallel._read_step(term, constants)
    if step is None:
        return original(term, x, reader, constants)
    scale, shift = step.affine.on(step.affine.channels.reshape(1, 6, 1)).vectors(1, 6)
    return replace(parallel._make_diagonal(step.node, x, scale, shift), step=step)


def takes_any_sum(self: Any, node: Any) -> bool:
    return parallel.kind_of(node) == "add"


def takes_product(self: Any, node: Any) -> bool:
    return parallel.kind_of(node) == "mul"


unread = patch(parallel, "value_readers", lambda node: [])

MUTANTS: dict[str, Mutant] = {
    # where taps meet
    "one tap off": mutant(three_and_one, offset(lambda at: (at[0] + 1, *at[1:]))),
    "one tap off on the last axis": mutant(three_and_one, offset(lambda at: (*at[:-1], at[-1] - 1))),
    "the first tap": mutant(three_and_one, offset(lambda at: (0,) * len(at))),
    "the last tap": mutant(three_and_one, offset(lambda at: (2,) * len(at))),
    "axes of the kernel exchanged": mutant(off_centre, offset(lambda at: at[::-1])),
    "in the middle": mutant(even, patch(parallel, "_find_offset", careless_offset)),
    "dilation ignored": mutant(dilated, branch(lambda b: replace(b, dilation=(1,), padding=(b.padding[0] // 4,)))),
    "another dilation": mutant(other_dilation, patch(parallel, "_find_offset", careless_offset)),
    "another stride": mutant(other_stride, patch(parallel, "_find_offset", careless_offset)),
    "another number of taps": mutant(stand_and_lie, offset(lambda at: (at[0], 0))),
    "padding of the other": mutant(three_and_one, branch(lambda b: replace(b, padding=(0,) * len(b.padding)))),
    "padding named same": mutant(
        same_padding, around(parallel, "_find_padding", lambda original, given, *a: original(0, *a))
    ),
    "one tap off in core ATen": mutant(core_three_and_one, offset(lambda at: (at[0] + 1, *at[1:]))),
    # weights
    "the larger kernel twice": mutant(three_and_one, inside(lambda large, small: large + large)),
    "the smaller kernel lost": mutant(three_and_one, inside(lambda large, small: large * 1)),
    "the larger kernel lost": mutant(three_and_one, inside(lambda large, small: small * 1)),
    "kernels subtracted": mutant(three_and_one, inside(lambda large, small: large - small)),
    "the smaller kernel transposed": mutant(three_and_one, inside(lambda large, small: large + small.transpose(0, 1))),
    "the smaller kernel mirrored": mutant(stand_and_lie, inside(lambda large, small: large + small.flip(2))),
    "a kernel that lies": mutant(stand_and_lie, inside(lambda large, small: large + small.transpose(2, 3))),
    # biases
    "the other bias lost": mutant(three_and_one, patch(parallel, "total", lambda a, b: a)),
    "the other bias only": mutant(three_and_one, patch(parallel, "total", lambda a, b: b)),
    "the shift lost": mutant(normalised, branch(lambda b: replace(b, bias=None) if b.diagonal else b)),
    "no bias where there was none": mutant(normalised_without_bias, patch(parallel, "remake_bias", lambda *a: ())),
    # x and scale·x
    "x is lost": mutant(identity, diagonal(lambda large, ones: large * 1)),
    "x is subtracted": mutant(identity, diagonal(lambda large, ones: large - ones)),
    "x of another channel": mutant(identity, diagonal(lambda large, ones: large + ones.flip(0))),
    "x of the next channel": mutant(identity, diagonal(lambda large, ones: large + ones.roll(1, 1))),
    "x of all channels": mutant(identity, diagonal(lambda large, ones: large + ones.amax(1, keepdim=True))),
    "x of another group": mutant(grouped_identity, diagonal(lambda large, ones: large + ones.flip(1))),
    "x of one group": mutant(
        grouped_identity, diagonal(lambda large, ones: torch.cat([large[:2] + ones[:2], large[2:]]))
    ),
    "x twice in a depthwise convolution": mutant(depthwise_identity, diagonal(lambda large, ones: large + 2 * ones)),
    "x not scaled": mutant(normalised, branch(lambda b: replace(b, weight=None) if b.diagonal else b)),
    "scales in reverse": mutant(normalised, diagonal(lambda large, ones: large + ones.flip(0, 1))),
    "the scale of the inputs": mutant(normalised, diagonal(lambda large, ones: large + ones.sum(0, keepdim=True))),
    # guards
    "places are channels": mutant(scaled_places, around(parallel, "_make_branch", scaled_along_any_axis)),
    "alpha is lost": mutant(weighted, patch(ParallelConvolutions, "takes", takes_any_sum), argument(parallel, alpha=1)),
    "a product is a sum": mutant(product, patch(ParallelConvolutions, "takes", takes_product)),
    "a term is read elsewhere": mutant(read_elsewhere, unread),
    "a term of another value": mutant(two_inputs, patch(parallel, "_find_common_input", first_input)),
    "a convolution of a convolution": mutant(
        chained, patch(parallel, "_find_common_input", lambda terms, constants: terms[1].args[0]), unread
    ),
}
