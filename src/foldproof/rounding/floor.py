"""Noise floors: the standard deviation that rounding gives each element of the outputs, from perturbed runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from foldproof.thresholds import PRIOR_RUNS


@dataclass(frozen=True)
class Score:
    """Deviations in units of their standard deviations: the root mean square, and the worst element."""

    rms: float
    worst: float
    output: int = 0
    index: tuple[int, ...] = ()


class Floor:
    """The effect of rounding on one program's outputs at one input.

    ``deviations[k][j]`` is the distance of output j from the float64 result in perturbed run k (float64, of the
    output's shape). ``least`` are lower limits for the standard deviation of each element, if there are any.
    """

    def __init__(self, deviations: Sequence[Sequence[Tensor]], least: Sequence[Tensor] | None = None) -> None:
        self.deviations = deviations
        self.runs = len(deviations)
        self._sums = [_sum(column) for column in zip(*deviations)]
        self._least = least
        self.sigmas = self._sigmas(self._sums, self.runs)

    def _sigmas(self, sums: Sequence[Tensor], runs: int) -> list[Tensor]:
        if self._least is None:
            return [_sigma(total, runs) for total in sums]
        if not runs:
            return list(self._least)
        return [torch.maximum(_sigma(total, runs), least) for total, least in zip(sums, self._least)]

    def score(self, deviation: Sequence[Tensor]) -> Score:
        """Score these distances to the float64 result."""
        return score(deviation, self.sigmas)

    @cached_property
    def null(self) -> Score:
        """Return the largest scores of the perturbed runs themselves, each measured by the others."""
        scores = []
        for one in self.deviations:
            others = [total - _finite(d).square() for total, d in zip(self._sums, one)]
            scores.append(score([_finite(d) for d in one], self._sigmas(others, self.runs - 1)))
        return Score(max((s.rms for s in scores), default=0.0), max((s.worst for s in scores), default=0.0))

    def ratio(self, found: Score) -> float:
        """Return a score over the largest perturbed one, which counts as at least 1 (rms) and 3 (worst) sigma."""
        expected = ((found.rms, max(self.null.rms, 1.0)), (found.worst, max(self.null.worst, 3.0)))
        return max(one / most for one, most in expected)

    @property
    def size(self) -> float:
        """Return the root mean square over all elements of all outputs."""
        count = sum(t.numel() for t in self._sums) * self.runs
        return (sum(float(t.sum()) for t in self._sums) / count) ** 0.5 if count else 0.0


def score(deviation: Sequence[Tensor], sigmas: Sequence[Tensor]) -> Score:
    """Divide deviations by standard deviations, element by element; 0/0 is 0."""
    total, count, worst, output = 0.0, 0, 0.0, 0
    index: tuple[int, ...] = ()
    for j, (d, s) in enumerate(zip(deviation, sigmas)):
        if not d.numel():
            continue
        z = torch.where(d == 0, 0.0, d.abs() / s)
        total, count = total + float(z.square().sum()), count + z.numel()
        at = int(z.reshape(-1).argmax())
        if float(z.reshape(-1)[at]) > worst:
            worst, output = float(z.reshape(-1)[at]), j
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), z.shape)) if z.ndim else ()
    return Score((total / count) ** 0.5 if count else 0.0, worst, output, index)


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)


def _sum(column: Sequence[Tensor]) -> Tensor:
    return torch.stack([_finite(d).square() for d in column]).sum(0)


def _sigma(total: Tensor, runs: int) -> Tensor:
    """Return each element's own mean square, plus a little of a typical one: the median of the elements that move."""
    moving = total[total > 0]
    typical = float(moving.median()) / runs if moving.numel() else 0.0
    return ((total + PRIOR_RUNS * typical) / (runs + PRIOR_RUNS)).sqrt()
