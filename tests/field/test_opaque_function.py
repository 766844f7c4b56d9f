"""Keyed functions: determined by seed, key and operands, and otherwise like random ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldproof.field import PRIMES, Field, UninterpretedFunction
from foldproof.field.uninterpreted import _mix_

FIELDS = [Field(PRIMES[0]), Field(PRIMES[20_000]), Field(PRIMES[-1])]


def operand(n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [f.reduce(torch.randint(f.p, (n,), generator=generator).double()) for f in FIELDS]


def apply(*operands: list[Tensor], seed: int = 1, key: str = "f", nonzero: bool = False) -> tuple[Tensor, ...]:
    return UninterpretedFunction(seed, key, FIELDS, nonzero)(operands)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> list[bool]:
    return [torch.equal(p, q) for p, q in zip(a, b)]


def test_deterministic() -> None:
    x = operand(100_000)
    assert all(equal(apply(x), apply(x)))


def test_the_sign_of_zero_does_not_matter() -> None:
    x = [torch.zeros(3, dtype=torch.float64) for _ in FIELDS]
    assert all(equal(apply(x), apply([-p for p in x])))


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
        assert torch.equal(part, part.round())
        assert float(part.abs().max()) <= field.p // 2
        assert float(part.min()) <= -(2**18) + 10 and float(part.max()) >= 2**18 - 10
        zeros = int((part == 0).sum())
        assert zeros == 0 if nonzero else zeros <= 12  # two are expected


def test_uniform() -> None:
    """Pearson's test with 256 cells, on consecutive arguments: the statistic is near 255, deviation 22.6."""
    n = 1_000_000
    x = [torch.arange(n, dtype=torch.float64) for _ in FIELDS]
    for part in apply([f.reduce(p) for f, p in zip(FIELDS, x)]):
        cells = ((part + 2**18) / 2**11).floor().long().bincount(minlength=256).double()
        statistic = float(((cells - n / 256) ** 2 / (n / 256)).sum())
        assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6


def test_residues_of_one_result_are_unrelated() -> None:
    parts = torch.stack([f.canonical(p) / f.p for f, p in zip(FIELDS, apply(operand(100_000)))])
    correlation = torch.corrcoef(parts) - torch.eye(3, dtype=torch.float64)
    assert float(correlation.abs().max()) < 0.02


def test_collisions_are_those_of_chance() -> None:
    """Two residues of 38 bits together, of one word and of two: among 2^17 results, meetings are rare."""
    first, second, third = (f.canonical(p) for f, p in zip(FIELDS, apply(operand(1 << 17))))
    arguments = torch.stack([f.canonical(p) for f, p in zip(FIELDS, operand(1 << 17))]).unique(dim=1).shape[1]
    for other in (first, third):
        assert (other * 2**20 + second).unique().numel() >= arguments - 2


def test_words_are_mixed_as_splitmix64_mixes_them() -> None:
    """Against Vigna's reference output for the seed 1234567, where no sign is dragged in: the fourth and fifth."""
    for i, wanted in ((4, 4593380528125082431), (5, 16408922859458223821)):
        state = (1234567 + i * 0x9E3779B97F4A7C15) % 2**64
        word = torch.tensor([state])
        _mix_(word, torch.empty_like(word))
        assert (int(word) ^ (int(word) % 2**64 >> 31)) % 2**64 == wanted
