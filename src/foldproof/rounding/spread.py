"""Two outputs in float64, and how far rounding the leaves to their dtypes may drive them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PERTURBATIONS = 4

EXPLAINED = 32.0
"""Differences up to this many times what rounding the leaves moves the outputs by count as rounding."""


@dataclass(frozen=True)
class Comparison:
    """Where two lists of outputs differ most, in units of what rounding explains.

    ``output`` and ``index`` locate the worst element; ``difference`` and ``floor`` are absolute values there;
    ``relative`` is the largest difference over the largest magnitude of its output.
    """

    output: int
    index: tuple[int, ...]
    before: float
    after: float
    difference: float
    floor: float
    relative: float
    unfinite: int = 0
    """Elements that are infinite or nan on one side only (or differ in sign), or that differ and are no number when
    perturbed: no witness, and no agreement."""
    share: float = 0.0
    """The largest share of an output's elements that differ by more than so many floors as were asked for."""

    @property
    def ratio(self) -> float:
        if self.difference == 0:
            return 0.0
        return self.difference / self.floor if self.floor else float("inf")


def perturbed(x: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """``x``, of double precision, with every element moved by up to half an ``epsilon`` of it; integers stay."""
    if not (x.dtype.is_floating_point or x.dtype.is_complex):
        return x
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return torch.where(x.isfinite(), x + x * noise.to(x.device) * (epsilon / 2), x)


Pair = tuple[Sequence[Tensor], Sequence[Tensor]]


def compare_in_float64(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    perturb: Callable[[int], Pair] | None,
    times: int = PERTURBATIONS,
    beyond: float = EXPLAINED,
) -> Comparison:
    """Compare float64 outputs element by element.

    ``perturb(i)`` runs *before* and *after* once more with leaves, inputs (see `perturbed`) and operators perturbed;
    the largest of ``times`` such excursions of an element, plus a few roundings of the element itself, is what rounding
    explains. Without ``perturb`` it is those roundings only. ``beyond`` floors, an element counts into the ``share``.
    """
    spreads = [torch.zeros_like(b) for b in before]
    for i in range(times if perturb is not None else 0):
        assert perturb is not None
        moved = zip(spreads, before, after, *perturb(i))
        spreads = [torch.maximum(s, torch.maximum((p - b).abs(), (q - a).abs())) for s, b, a, p, q in moved]
    worst: Comparison | None = None
    unfinite, share = 0, 0.0
    for j, (b, a, s) in enumerate(zip(before, after, spreads)):
        if not b.numel():
            continue
        finite = b.isfinite() & a.isfinite()
        same = (b == a) | (b.isnan() & a.isnan())
        difference = torch.where(finite & ~same, (a - b).abs(), 0.0)
        magnitude = torch.where(finite, b.abs(), 0.0)
        least = magnitude * 2.0**-22 + torch.finfo(torch.float64).tiny
        unfinite += int(((~finite & ~same) | (~s.isfinite() & (difference > least))).sum())
        floor = torch.where(s.isnan(), torch.inf, s) + least
        ratio = torch.where(difference > 0, difference / floor, 0.0)
        share = max(share, float((ratio > beyond).double().mean()))
        at = int(ratio.reshape(-1).argmax())
        scale = float(magnitude.max())
        relative = float(difference.max()) / scale if scale else float(difference.max())
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), b.shape)) if b.ndim else ()
        found = Comparison(
            j, index, float(b[index]), float(a[index]), float(difference[index]), float(floor[index]), relative
        )
        if worst is None or found.ratio > worst.ratio:
            worst = found
    return replace(worst or Comparison(0, (), 0.0, 0.0, 0.0, 0.0, 0.0), unfinite=unfinite, share=share)
