"""Differences that rounding explains, and some that it does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foldproof.rounding import Float64, compare_in_float64
from foldproof.rounding.spread import perturbed


def noise(size: float, after: list[Tensor]) -> object:
    def perturb(i: int) -> tuple[list[Tensor], list[Tensor]]:
        return [torch.ones(3, dtype=torch.float64) * (1 + size * (-1) ** i)], after

    return perturb


@pytest.mark.parametrize(("moved", "low", "high"), [(0.0, 0, 0), (1e-7, 0.1, 2), (1e-3, 1000, 1e5)])
def test_ratio(moved: float, low: float, high: float) -> None:
    before = [torch.ones(3, dtype=torch.float64)]
    after = [before[0].clone()]
    after[0][1] += moved
    found = compare_in_float64(before, after, noise(1e-7, after))  # type: ignore[arg-type]
    assert low <= found.ratio <= high
    if moved:
        assert found.index == (1,) and found.difference == pytest.approx(moved)


@pytest.mark.parametrize(
    ("before", "after"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (math.inf, -math.inf)]
)
def test_not_finite_on_one_side_is_counted_and_no_witness(before: float, after: float) -> None:
    first, second = ([torch.tensor([x, 1.0], dtype=torch.float64)] for x in (before, after))
    found = compare_in_float64(first, second, lambda i: (first, second))
    assert found.unfinite == 1 and found.ratio == 0


def test_not_finite_on_both_sides_agrees() -> None:
    values = [torch.tensor([math.nan, math.inf, -math.inf], dtype=torch.float64)]
    assert compare_in_float64(values, values, None).ratio == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_perturbation_is_half_a_unit(dtype: torch.dtype) -> None:
    x = torch.randn(1000, dtype=torch.float64)
    moved = ((perturbed(x, torch.finfo(dtype).eps, torch.Generator().manual_seed(0)) - x) / x).abs()
    half = torch.finfo(dtype).eps / 2
    assert 0.9 * half < moved.max() <= half * (1 + 1e-6)
    ids = torch.arange(3)
    assert perturbed(ids, 1e-7, torch.Generator()) is ids


def test_float64_mode_computes_in_double_whatever_is_asked() -> None:
    x = torch.tensor([1.0, 1e-9])
    with Float64():  # type: ignore[no-untyped-call]
        total = (x.to(torch.float16).float() + torch.ones(2, dtype=torch.float32)).sum()
    assert total.dtype == torch.float64 and total.item() == pytest.approx(3 + 1e-9, abs=1e-15)


def test_float64_mode_keeps_what_is_written() -> None:
    outside = torch.ones(2)
    with Float64():
        new = torch.zeros(2)
        for x in (new, outside):
            x[0] = 3
            x.add_(1)
        assert new.tolist() == [4.0, 1.0] and (outside * 1).tolist() == [4.0, 2.0]
    assert outside.tolist() == [1.0, 1.0]
