"""Keyed functions: determined by seed, key and operands, and otherwise like random ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldproof.field import PRIMES, Field, OpaqueFunction

FIELDS = [Field(PRIMES[0]), Field(PRIMES[20_000]), Field(PRIMES[-1])]


def operand(n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [f.reduce(torch.randint(f.p, (n,), generator=generator).double()) for f in FIELDS]


def apply(*operands: list[Tensor], seed: int = 1, key: str = "f", nonzero: bool = False) -> tuple[Tensor, ...]:
    return OpaqueFunction(seed, key, FIELDS, nonzero)(operands)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> list[bool]:
    return [torch.equal(p, q) for p, q in zip(a, b)]


def test_deterministic() -> None:
    x = operand(100_000)
    assert all(equal(apply(x), apply(x)))


def test_the_representative_does_not_matter() -> None:
    """p/2 + 1 and its negative counterpart are the same residue."""
    x = [torch.tensor([float(f.p // 2 + 1)], dtype=torch.float64) for f in FIELDS]
    y = [p - f.p for f, p in zip(FIELDS, x)]
    assert all(equal(apply(x), apply(y)))


def test_elements_are_independent_of_their_place() -> None:
    x = operand(70_000)
    whole, part = apply(x), apply([p[-3:] for p in x])
    assert all(torch.equal(p[-3:], q) for p, q in zip(whole, part))


@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 0, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = [torch.zeros(shape, dtype=torch.float64) for _ in FIELDS]
    assert all(p.shape == shape for p in apply(x))


def test_everything_enters() -> None:
    """Another seed, key, number or order of operands, or one other residue of one operand: every residue changes."""
    x, y = operand(200), operand(200, seed=1)
    base = apply(x, y)
    others = [apply(x, y, seed=2), apply(x, y, key="g"), apply(y, x), apply(x), apply(x, y, x)]
    for j in range(len(FIELDS)):
        for changed in (x, y):
            one = [p + (1.0 if i == j else 0.0) for i, p in enumerate(changed)]
            others.append(apply(one, y) if changed is x else apply(x, one))
    for other in others:
        for p, q in zip(base, other):
            assert int((p == q).sum()) <= 2  # chance alone: 200 of about 2^19.5


@pytest.mark.parametrize("nonzero", [False, True])
def test_range(nonzero: bool) -> None:
    for field, part in zip(FIELDS, apply(operand(1_000_000), nonzero=nonzero)):
        values = field.canonical(part)
        assert torch.equal(values, values.round())
        assert float(part.abs().max()) <= field.p / 2 + 2
        assert float(values.max()) < field.p
        zeros = int((values == 0).sum())
        assert zeros == 0 if nonzero else zeros <= 12  # two are expected


def test_uniform() -> None:
    """Pearson's test with 256 cells, on consecutive arguments: the statistic is near 255, deviation 22.6."""
    n = 1_000_000
    x = [torch.arange(n, dtype=torch.float64) for _ in FIELDS]
    for field, part in zip(FIELDS, apply([f.reduce(p) for f, p in zip(FIELDS, x)])):
        cells = (field.canonical(part) * 256 / field.p).floor().long().bincount(minlength=256).double()
        statistic = float(((cells - n / 256) ** 2 / (n / 256)).sum())
        assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6


def test_residues_of_one_result_are_unrelated() -> None:
    parts = torch.stack([f.canonical(p) / f.p for f, p in zip(FIELDS, apply(operand(100_000)))])
    correlation = torch.corrcoef(parts) - torch.eye(3, dtype=torch.float64)
    assert float(correlation.abs().max()) < 0.02


def test_collisions_are_those_of_chance() -> None:
    """Two residues of 40 bits together: among 2^17 results a meeting has a chance of about one in a hundred."""
    first, second, _ = (f.canonical(p) for f, p in zip(FIELDS, apply(operand(1 << 17))))
    arguments = torch.stack([f.canonical(p) for f, p in zip(FIELDS, operand(1 << 17))]).unique(dim=1).shape[1]
    results = (first * 2**20 + second).unique().numel()
    assert results >= arguments - 1
