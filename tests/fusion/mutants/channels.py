"""Scales and shifts that are put together wrongly, or given to other channels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.fusion import affine
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import functional
from foldproof.fusion.motion import selection
from foldproof.rewriting import vectors
from mutants.mutant import Mutant, Patch, around, exported, flipped, mutant, patch, turned

_norm = partial(nn.BatchNorm1d, 6)
_linear = partial(nn.Linear, 3, 6)
_vector = partial(torch.randn, 6)

norm_scaled = exported(
    functional(((4, 3),), lambda m, x: m.n(m.a(x)) * m.k + m.b, a=_linear, n=_norm, k=_vector, b=_vector)
)
flattened = exported(functional(((2, 5, 3),), lambda m, x: m.n(m.a(x).flatten(0, 1)).view(2, 5, 6), a=_linear, n=_norm))
shuffled = exported(
    functional(
        ((2, 3, 5),),
        lambda m, x: m.n(m.a(x).view(2, 3, 2, 5).transpose(1, 2).reshape(2, 6, 5)),
        a=partial(nn.Conv1d, 3, 6, 1),
        n=_norm,
    )
)
joined = exported(
    functional(
        ((2, 6, 5), (2, 2, 5)), lambda m, x, y: m.a(torch.cat([m.n(x), y], 1)), a=partial(nn.Conv1d, 8, 3, 3), n=_norm
    )
)
joined_scaled = exported(
    functional(
        ((2, 6, 5), (2, 2, 5)),
        lambda m, x, y: m.a(torch.cat([y, x * m.k.view(6, 1)], 1)),
        a=partial(nn.Conv1d, 8, 3, 3, padding=1),
        k=_vector,
    )
)
product = exported(functional(((4, 3),), lambda m, x: m.n(torch.mm(x, m.w)), w=partial(torch.randn, 3, 6), n=_norm))
tokens_of_equal_size = exported(functional(((2, 6, 3),), lambda m, x: m.n(m.a(x)), a=_linear, n=_norm))
two_axes = exported(
    functional(((2, 6, 6),), lambda m, x: m.n(m.l(x)) * m.k, l=partial(nn.LayerNorm, (6, 6)), n=_norm, k=_vector)
)
both_ways = exported(
    functional(
        ((4, 3),),
        lambda m, x: torch.cat([y := m.a(x), y.flip(1)], 1) * m.k,
        a=_linear,
        k=partial(torch.randn, 12),
    )
)
added_upside_down = exported(functional(((4, 3),), lambda m, x: m.n((y := m.a(x)) + y.flip(0)), a=_linear, n=_norm))
residual = exported(functional(((4, 3), (4, 3)), lambda m, x, y: m.n(m.a(x) + m.b(y)), a=_linear, b=_linear, n=_norm))
sliced_twice = exported(
    functional(
        ((4, 6), (4, 2)),
        lambda m, x, y: m.a((z := x + m.k)[:, 1:4] + torch.cat([z, y], 1)[:, :3]),
        a=partial(nn.Linear, 3, 3),
        k=_vector,
    )
)


def method(name: str, wrong: Any) -> Patch:
    return around(Affine, name, wrong)


def renumbered(wrong: Any) -> Patch:
    return around(Affine, "renumber", lambda original, *a: wrong(original(*a)))


def last_of_all(channels: Tensor) -> Tensor:
    return channels.amax().reshape([1] * channels.dim())


MUTANTS: dict[str, Mutant] = {
    # composition
    "the later before the first": mutant(norm_scaled, method("then", lambda original, a, b: original(b, a))),
    "the later is forgotten": mutant(norm_scaled, method("then", lambda original, a, b: a)),
    "the first is forgotten": mutant(norm_scaled, method("then", lambda original, a, b: b)),
    "the first shift is not scaled": mutant(norm_scaled, patch(affine, "scaled", lambda shift, scale: shift)),
    "the first shift is lost": mutant(norm_scaled, patch(affine, "scaled", lambda shift, scale: None)),
    "the later shift is lost": mutant(norm_scaled, patch(affine, "total", lambda a, b: a)),
    "the first shift is replaced": mutant(norm_scaled, patch(affine, "total", lambda a, b: b)),
    "the later scale is lost": mutant(norm_scaled, patch(affine, "product", lambda a, b: a)),
    "the first scale is lost": mutant(norm_scaled, patch(affine, "product", lambda a, b: b)),
    "scales are added": mutant(norm_scaled, patch(vectors, "multiply", lambda a, b: a + b)),
    "scales are divided": mutant(norm_scaled, patch(vectors, "multiply", lambda a, b: a / b)),
    "shifts are subtracted": mutant(norm_scaled, patch(vectors, "add", lambda a, b: a - b)),
    "shifts are multiplied": mutant(norm_scaled, patch(vectors, "add", lambda a, b: a * b)),
    # numbers of channels
    "channels numbered backwards": mutant(
        norm_scaled, patch(Affine, "along", staticmethod(lambda *a: flipped(_along(*a))))
    ),
    "channels on the last axis": mutant(
        tokens_of_equal_size, patch(Affine, "along", staticmethod(lambda axis, *a: _along(-1, *a)))
    ),
    "a larger shape numbered backwards": mutant(two_axes, renumbered(flipped)),
    "a larger shape numbered by columns": mutant(two_axes, renumbered(turned)),
    "channels taken in order": mutant(shuffled, patch(Affine, "_picked", lambda self, index: (self.scale, self.shift))),
    "channels taken backwards": mutant(
        shuffled, around(vectors, "take", lambda original, v, index, n: original(v, index[::-1], n))
    ),
    "the next channel taken": mutant(
        shuffled, around(vectors, "take", lambda original, v, index, n: original(v, index[1:] + index[:1], n))
    ),
    "the first channel for all": mutant(
        flattened, method("vectors", lambda original, self, *a: original(replace(self, channels=0 * self.channels), *a))
    ),
    "tensors numbered backwards": mutant(product, method("tensors", lambda original, self: original(flipped(self)))),
    "tensors without their shape": mutant(
        two_axes, method("over", lambda original, self, shape: original(turned(self), shape))
    ),
    "axes cut down where they differ": mutant(flattened, patch(affine, "compress", last_of_all)),
    "the channel axis cut down": mutant(
        flattened, around(affine, "compress", lambda original, channels: original(channels.amax(-1, keepdim=True)))
    ),
    "vectors joined in reverse": mutant(
        joined, around(selection, "joined", lambda original, v, c, n: original(v[::-1], c[::-1], n))
    ),
    "what is not scaled is doubled": mutant(
        joined, around(selection, "joined", lambda original, v, c, n: original(v, c, 2.0))
    ),
    "what is not scaled is nothing": mutant(
        joined_scaled, around(selection, "joined", lambda original, v, c, n: original(v, c, 0.0))
    ),
    "joined vectors one place off": mutant(
        joined_scaled, around(vectors, "join", lambda original, *a: original(*a).roll(1))
    ),
    # are they alike?
    "all affines are alike": mutant(both_ways, patch(Affine, "same_as", lambda self, other: True)),
    "alike wherever they lie": mutant(both_ways, patch(Affine, "same_as", lambda a, b: a.scale == b.scale)),
    "alike whatever they add": mutant(
        added_upside_down,
        patch(Affine, "same_as", lambda a, b: a.scale == b.scale and torch.equal(a.channels, b.channels)),
    ),
    "a scale is no reason": mutant(residual, patch(Affine, "is_identity", property(lambda self: self.shift is None))),
}

_along = Affine.along
