"""Random matrices that are drawn as far as programs look at them: every answer is one about the same matrix."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from foldproof.field import Field, residues
from foldproof.shadow.matrices import Matrix, echelon

FIELDS = [Field(524309), Field(1048573)]
N, M = 520, 600


def vectors(count: int, size: int, seed: int) -> list[Tensor]:
    return [residues((count, size), torch.Generator().manual_seed(seed), f.p) for f in FIELDS]


def product(field: Field, x: Tensor, w: Tensor) -> Tensor:
    return field.reduce(x @ w)


@pytest.mark.parametrize("seed", range(6))
def test_all_products_are_of_one_matrix(seed: int) -> None:
    rng = random.Random(seed)
    matrix, transposed = Matrix(FIELDS, (N, M), [seed, seed + 1]), rng.random() < 0.5
    seen: list[tuple[list[Tensor], list[Tensor]]] = []
    size = M if transposed else N
    for step in range(5):
        x = vectors(rng.choice((1, 3, 8)), size, 100 * seed + step)
        if seen and rng.random() < 0.7:  # some rows are combinations of known ones
            old, _ = rng.choice(seen)
            x = [torch.cat([f.reduce(3 * o - o.flip(0)), p]) for f, o, p in zip(FIELDS, old, x)]
        if rng.random() < 0.5:
            x = [torch.cat([part, part[:1] * 0]) for part in x]
        made = matrix.times(x, transposed)
        assert made is not None
        seen.append((x, made))
    for i, field in enumerate(FIELDS):
        whole = matrix.whole(i)
        assert bool((whole.abs() <= field.p // 2).all()) and whole.unique().numel() > N * M / 4
        for x, made in seen:
            expected = product(field, x[i], whole.t() if transposed else whole)
            assert torch.equal(field.canonical(made[i]), field.canonical(expected))
        assert torch.equal(whole, matrix.whole(i))
    assert matrix.times(seen[0][0], transposed) is None, "products are those of the matrix that was seen"


@pytest.mark.parametrize("order", ["looked up first", "multiplied first", "in turns"])
def test_rows_are_looked_up_and_multiplied(order: str) -> None:
    matrix, index, more = Matrix(FIELDS, (N, M), [5, 6]), torch.tensor([[7, 3], [3, 519]]), torch.tensor([8, 7])
    x, y = vectors(4, M, 1), vectors(3, M, 2)
    steps = {
        "looked up first": [index, more, x, y, x],
        "multiplied first": [x, y, index, more],
        "in turns": [x, index, y, more, x],
    }[order]
    found = [matrix.lookup(s) if isinstance(s, Tensor) else matrix.times(s, True) for s in steps]
    assert matrix.times(vectors(4, N, 1), False) is None, "the other side takes the whole matrix"
    for i, field in enumerate(FIELDS):
        whole = matrix.whole(i)
        for step, made in zip(steps, found):
            assert made is not None
            expected = whole[step] if isinstance(step, Tensor) else product(field, step[i], whole.t())
            assert torch.equal(field.canonical(made[i]), field.canonical(expected))


def test_many_rows_take_the_whole_matrix() -> None:
    matrix = Matrix(FIELDS, (N, M), [5, 6])
    assert matrix.times(vectors(65, N, 1), False) is None
    for step in range(12):
        matrix.times(vectors(8, N, step), False)
    assert matrix.times(vectors(8, N, 99), False) is None


def test_products_are_drawn_uniformly() -> None:
    """Each residue is about as likely in products, and in the matrix given them, as in any other place."""
    field = Field(524309)
    matrix = Matrix([field], (N, 5000), [1])
    x = residues((8, N), torch.Generator().manual_seed(1), field.p)
    (made,) = matrix.times([x], False) or []
    for drawn in (made, matrix.whole(0)[echelon(field, x)[1]]):
        counts = torch.histc(drawn, 16, -field.p / 2, field.p / 2)
        assert float((counts - drawn.numel() / 16).abs().max()) < 6 * (drawn.numel() / 16) ** 0.5


def test_the_echelon_form_spans_the_same_rows() -> None:
    field = Field(524309)
    x = residues((5, 40), torch.Generator().manual_seed(3), field.p)
    x[3] = field.reduce(2 * x[0] - x[1])
    rows, pivots = echelon(field, x)
    assert rows.shape == (4, 40) and torch.equal(rows[:, pivots], torch.eye(4, dtype=torch.float64))
    assert torch.equal(field.canonical(field.reduce(x[:, pivots] @ rows)), field.canonical(x))
