"""Distances between two programs' outputs in float64, in units of the rounding of their constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foldproof.layout import keep_layout
from foldproof.rounding.floor import Floor
from foldproof.thresholds import MAX_RELATIVE_SPREAD, SPREAD_RUNS

FLOAT32_ROUNDINGS = 2.0**-24
"""Lower limit of an output's relative standard deviation: constants inside of kernels are float32."""
FLOAT64_ROUNDINGS = 2.0**-50
"""The same limit for programs in float64 alone."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference of two lists of outputs, in units of the difference that rounding explains.

    Attributes:
        output: number of the output with the worst element.
        index: that element; ``before`` and ``after`` are its values.
        difference: the distance of the two.
        sigma: the standard deviation that rounding gives that distance.
        ratio: the distance of the outputs in units of that between perturbed runs of themselves: 1 is expected.
        agree: True if every element agrees to four digits, so that no floor is needed.
        unfinite: number of elements that are infinite or nan on one side only (or differ in sign), or that differ and
            become infinite or nan under perturbation: neither a counterexample nor agreement.
        hidden: numbers of the outputs that differ, and that rounding alone moves by as much as their own size.
    """

    output: int
    index: tuple[int, ...]
    before: float
    after: float
    difference: float
    sigma: float
    ratio: float
    agree: bool
    unfinite: int = 0
    hidden: frozenset[int] = frozenset()


NOTHING = Comparison(0, (), 0.0, 0.0, 0.0, 0.0, 0.0, True)


def perturbed(x: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Return ``x``, of double precision, with every element moved by up to half an ``epsilon`` of it; integers stay."""
    if not (x.dtype.is_floating_point or x.dtype.is_complex):
        return x
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return keep_layout(x, torch.where(x.isfinite(), x + x * noise.to(x.device) * (epsilon / 2), x))


Pair = tuple[Sequence[Tensor], Sequence[Tensor]]


def compare_in_float64(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    perturb: Callable[[int], Pair] | None,
    times: int = SPREAD_RUNS,
    least: float = FLOAT32_ROUNDINGS,
) -> Comparison:
    """Compare float64 outputs element by element.

    ``perturb(i)`` runs *before* and *after* once more, with their rounded quantities moved within that rounding. The
    movement of their difference, over ``times`` runs, is the floor that the difference itself is measured by. It never
    falls below a relative standard deviation of ``least``, which is the floor if there is no ``perturb``.
    """
    pairs = [(b, a) for b, a in zip(before, after)]
    finite = [b.isfinite() & a.isfinite() for b, a in pairs]
    same = [(b == a) | (b.isnan() & a.isnan()) for b, a in pairs]
    zero = [torch.zeros_like(b) for b in before]
    deviation = [torch.where(f & ~s, a - b, z) for (b, a), f, s, z in zip(pairs, finite, same, zero)]
    rest = [torch.where(f, b.abs(), 0.0) * least + torch.finfo(torch.float64).tiny for (b, _), f in zip(pairs, finite)]
    runs: list[list[Tensor]] = []
    lost = [torch.zeros_like(f) for f in finite]
    for i in range(times if perturb is not None else 0):
        assert perturb is not None
        p, q = perturb(i)
        moved = [(y - a) - (x - b) for (b, a), x, y in zip(pairs, p, q)]
        lost = [n | ~m.isfinite() for n, m in zip(lost, moved)]
        runs.append(moved)
    floor = Floor(runs, rest)
    unfinite = 0
    for f, s, n, d, r in zip(finite, same, lost, deviation, rest):
        unfinite += int(((~f & ~s) | (f & n & (d.abs() > r))).sum())
        d.masked_fill_(n, 0.0)
    found = floor.score(deviation)
    at = (found.output, found.index)
    if not before or not before[at[0]].numel():
        return replace(NOTHING, unfinite=unfinite)
    index = found.index or (0,) * before[at[0]].ndim
    return Comparison(
        found.output,
        index,
        float(before[at[0]][index]),
        float(after[at[0]][index]),
        float(deviation[at[0]][index].abs()),
        float(floor.sigmas[at[0]][index]),
        floor.ratio(found),
        all(_agree(b, d) for b, d in zip(before, deviation)),
        unfinite,
        frozenset(i for i, (b, d, s) in enumerate(zip(before, deviation, floor.sigmas)) if _is_hidden(b, d, s)),
    )


def _agree(before: Tensor, deviation: Tensor) -> bool:
    """True if every element agrees to four digits, with a smaller one measured against a typical element.

    The typical element is the lower quartile, so that a few huge ones, as of a mask, hide nothing.
    """
    magnitude = torch.where(before.isfinite(), before.abs(), 0.0)
    if not magnitude.numel():
        return True
    typical = magnitude.flatten().kthvalue(max(magnitude.numel() // 4, 1)).values
    return bool((deviation.abs() <= 1e-4 * (magnitude + typical)).all())


def _is_hidden(before: Tensor, deviation: Tensor, sigma: Tensor) -> bool:
    size = float(torch.where(before.isfinite(), before.abs(), 0.0).max()) if before.numel() else 0.0
    return bool(((deviation != 0) & (sigma > MAX_RELATIVE_SPREAD * size)).any()) and size > 0
