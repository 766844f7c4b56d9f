"""Draws are whole numbers in [-2^18, 2^18), uniform, and the same again from the same seed."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from foldproof.field import DRAWN, PRIMES, few, many

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0), (1 << 16) + 1, (1 << 17) + 2]


def shape_of(x: int | tuple[int, ...]) -> tuple[int, ...]:
    return x if isinstance(x, tuple) else (x,)


def both(shape: tuple[int, ...], seed: int) -> list[Tensor]:
    return [few(shape, random.Random(seed)), many(shape, seed)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_seeds(shape: int | tuple[int, ...]) -> None:
    shape = shape_of(shape)
    for first, again, other in zip(both(shape, 1), both(shape, 1), both(shape, 2)):
        assert first.shape == shape and first.dtype == torch.float64
        assert torch.equal(first, again)
        assert first.numel() < 2 or not torch.equal(first, other)


def test_uniform() -> None:
    """Pearson's test with 256 cells: the statistic is near 255, deviation 22.6."""
    n = 1_000_000
    for x in both((n,), 3):
        assert torch.equal(x, x.round())
        assert -DRAWN / 2 <= float(x.min()) < -DRAWN / 2 + 10 and DRAWN / 2 - 10 < float(x.max()) < DRAWN / 2
        for part in (x, x[::2], x[1::2]):  # two come from one word
            cells = ((part + DRAWN // 2) // (DRAWN // 256)).long().bincount(minlength=256).double()
            statistic = float(((cells - len(part) / 256) ** 2 / (len(part) / 256)).sum())
            assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6
        assert abs(float(torch.corrcoef(torch.stack([x[::2], x[1::2]]))[0, 1])) < 0.01


def test_what_is_drawn_is_reduced_and_different_modulo_every_prime() -> None:
    assert PRIMES[0] // 2 >= DRAWN / 2
    assert PRIMES[0] >= DRAWN
