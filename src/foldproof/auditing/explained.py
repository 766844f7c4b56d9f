"""Differences of two results of one computation that rounding explains.

A computation is run again with each operator's result moved within its rounding. The results show how far rounding
moves each number: by much, where numbers cancel, and by a whole step, where a number is rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from foldproof.rounding.noise import Noise
from foldproof.thresholds import MAX_EXPLAINED_RATIO, MAX_KERNEL_ROUNDINGS, MAX_RELATIVE_SPREAD, RUNS_AT_GIVEN_INPUTS

T = TypeVar("T")


def run_rounding(compute: Callable[[], T]) -> Iterator[T]:
    """Run a computation several times, with each operator's result moved within its rounding."""
    for seed in range(RUNS_AT_GIVEN_INPUTS):
        with Noise(torch.Generator().manual_seed(seed)):
            result = compute()
        yield result


def explains(expected: Tensor, actual: Tensor, moved: Sequence[Tensor]) -> bool:
    """Return True if rounding explains the difference in each element, as far as the ``moved`` results show it.

    An element that rounding moves by a good part of its size shows nothing.
    """
    b = actual.to(torch.float64)
    runs = torch.stack([expected, *moved])
    finite = runs.isfinite().all(0)
    spread = torch.where(finite, runs.amax(0) - runs.amin(0), 0.0)
    floating = actual.dtype.is_floating_point
    epsilon = max(torch.finfo(actual.dtype).eps, torch.finfo(torch.float32).eps) if floating else 0.0
    _, size = measure(expected, actual)
    near = (expected - b).abs() <= MAX_KERNEL_ROUNDINGS * epsilon * size + MAX_EXPLAINED_RATIO * spread
    alike = (expected == b) | (expected.isnan() & b.isnan())
    unsteady = spread > MAX_RELATIVE_SPREAD * runs.abs().amax(0)  # 1/x for x near 0
    unsteady |= ~finite & ~((runs == expected) | (runs.isnan() & expected.isnan())).all(0)
    return bool((alike | (finite & near) | unsteady).all())


def measure(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """Return the largest difference of the numbers, and their size."""
    a, b = expected, actual.to(torch.float64)
    if not a.numel():
        return 0.0, 0.0
    finite = a.isfinite() & b.isfinite()
    odd = not bool((finite | (a == b) | (a.isnan() & b.isnan())).all())
    difference = math.inf if odd else float(torch.where(finite, (a - b).abs(), 0.0).max())
    return difference, float(torch.where(finite, a.abs(), 0.0).max())
