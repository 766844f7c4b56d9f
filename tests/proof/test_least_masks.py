"""Scores that are masked with the least number of their dtype, as language models do, beside those masked with -inf."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

import foldproof
from foldproof.verdict import Kind

torch.manual_seed(0)
X = torch.randn(1, 2, 5, 16)
LATER = torch.ones(5, 5, dtype=torch.bool).triu(1)
LEAST = torch.finfo(torch.float32).min


def fused(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True)


def masked_with(number: float, later: Tensor = LATER) -> Callable[[Tensor], Tensor]:
    mask = torch.zeros(5, 5).masked_fill(later, number)

    def eager(x: Tensor) -> Tensor:
        scores = x @ (x * 2).mT * (1 / math.sqrt(16)) + mask
        return torch.softmax(scores, -1) @ (x + 1)

    return eager


def test_the_least_number_masks_as_infinity_does() -> None:
    found = foldproof.prove(fused, masked_with(LEAST), (X,))
    assert found.kind is Kind.PROVED_WITHIN, str(found)
    assert [step.name for step in found.steps] == ["masking with the least float32 is read as masking with -inf"]
    assert foldproof.prove(fused, masked_with(-math.inf), (X,)).kind is Kind.PROVED


def test_another_mask_is_refuted() -> None:
    assert foldproof.prove(fused, masked_with(LEAST, LATER.roll(1, 1)), (X,)).kind is Kind.REFUTED


def test_other_large_numbers_are_numbers() -> None:
    found = foldproof.prove(fused, masked_with(-1e4), (X,))
    assert found.kind in (Kind.ROUNDING, Kind.UNDECIDED), str(found)


def test_rows_that_are_masked_throughout() -> None:
    """They are means with the least number, and zeros or a nan with -inf."""
    rows = LATER.clone()
    rows[2] = True
    for other in (masked_with(-math.inf, rows), fused):
        assert not foldproof.prove(masked_with(LEAST, rows), other, (X,)).ok
