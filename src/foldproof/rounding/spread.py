"""Two outputs in float64, and how far rounding the leaves to their dtypes may drive them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PERTURBATIONS = 4


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

    @property
    def ratio(self) -> float:
        if self.difference == 0:
            return 0.0
        return self.difference / self.floor if self.floor else float("inf")


def perturbed(x: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """``x`` (float64) with every element moved by up to half a unit in the last place of ``dtype``, relatively."""
    if not x.dtype.is_floating_point or not dtype.is_floating_point:
        return x
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x + x * noise.to(x.device) * (torch.finfo(dtype).eps / 2)


def compare_in_float64(
    before: Sequence[Tensor], after: Sequence[Tensor], perturb: Callable[[int], Sequence[Tensor]] | None
) -> Comparison:
    """Compare float64 outputs element by element.

    ``perturb(i)`` runs *before* once more with its leaves and inputs perturbed (see `perturbed`); the largest of
    several such excursions of an element, plus a few roundings of the element itself, is what rounding explains
    (Monte Carlo arithmetic, Parker 1997, applied to the leaves). Without ``perturb`` the floor is those roundings.
    """
    spreads = [torch.zeros_like(b) for b in before]
    for i in range(PERTURBATIONS if perturb is not None else 0):
        assert perturb is not None
        spreads = [torch.maximum(s, (p - b).abs()) for s, p, b in zip(spreads, perturb(i), before)]
    worst: Comparison | None = None
    for j, (b, a, s) in enumerate(zip(before, after, spreads)):
        if not b.numel():
            continue
        finite = b.isfinite()
        same = (b == a) | (b.isnan() & a.isnan())
        difference = torch.where(same, 0.0, torch.where(finite & a.isfinite(), (a - b).abs(), torch.inf))
        # Where *before* is not finite, no rounding explains that *after* is something else.
        magnitude = torch.where(finite, b.abs(), 0.0)
        explained = torch.where(finite, torch.where(s.isnan(), torch.inf, s), 0.0)
        floor = explained + magnitude * 2.0**-22 + torch.finfo(torch.float64).tiny
        ratio = torch.where(difference > 0, difference / floor, 0.0)
        at = int(ratio.reshape(-1).argmax())
        scale = float(magnitude.max())
        relative = float(difference.max()) / scale if scale else float(difference.max())
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), b.shape)) if b.ndim else ()
        found = Comparison(
            j, index, float(b[index]), float(a[index]), float(difference[index]), float(floor[index]), relative
        )
        if worst is None or found.ratio > worst.ratio:
            worst = found
    return worst or Comparison(0, (), 0.0, 0.0, 0.0, 0.0, 0.0)
