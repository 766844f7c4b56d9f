"""Matrices made of rows of random matrices: products and look-ups are those of the whole matrices, rearranged."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foldproof.field import Field, residues
from foldproof.shadow import SamplePoint, Shadow, draw_variable
from foldproof.shadow.arrangements import Arrangement
from foldproof.shadow.ondemand import Memory, OnDemand

N, M = 200, 264
"""Each matrix is large enough to be drawn as far as it is looked at."""


def leaf(point: SamplePoint, *shape: int) -> Shadow:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Shadow(value, draw_variable(point, value, data=False, lent=True))


def on_demand(x: Tensor) -> OnDemand:
    assert isinstance(x, Shadow) and isinstance(x.residue.parts, OnDemand)
    return x.residue.parts


def in_pairs(x: Tensor) -> Tensor:
    return x.view(2, 2, -1, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


REARRANGED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "a copy": lambda a, b, small: a.clone(),
    "rows in another order": lambda a, b, small: in_pairs(a),
    "rows of several": lambda a, b, small: torch.cat([in_pairs(a), small, b]),
    "rows by number": lambda a, b, small: torch.cat([a, b])[torch.arange(0, 2 * N, 2)],
    "some rows more than once": lambda a, b, small: torch.cat([a, a.flip(0)]),
    "transposed": lambda a, b, small: torch.cat([a, b]).t().contiguous(),
    "columns in another order": lambda a, b, small: torch.cat([b[:, 100:], b[:, :100]], 1),
    "columns of several": lambda a, b, small: torch.cat([a, b], 1).t().contiguous()[: 2 * M],
    "a part of the rows": lambda a, b, small: torch.cat([a, b])[50:350].clone(),
}


@pytest.mark.parametrize("how", REARRANGED)
@pytest.mark.parametrize("transposed", [True, False])
def test_products_are_those_of_the_rearranged_matrix(how: str, transposed: bool) -> None:
    point = SamplePoint(seed=1, k=2)
    leaves = leaf(point, N, M), leaf(point, N, M), leaf(point, 8, M)
    made = REARRANGED[how](*leaves)
    parts = on_demand(made)
    assert parts.matrix is not None and isinstance(parts.matrix[0], Arrangement), "nothing is drawn whole"
    n = made.shape[1 if transposed else 0]
    rows = [residues((3, n), torch.Generator().manual_seed(7), f.p) for f in point.fields]
    found = parts.matrix[0].times(rows, transposed != parts.matrix[1])
    for i, field in enumerate(point.fields):
        whole = REARRANGED[how](*(x.residue.parts[i] for x in leaves))
        expected = field.reduce(rows[i] @ (whole.t() if transposed else whole))
        assert torch.equal(field.canonical(found[i]), field.canonical(expected))
        assert torch.equal(parts[i], whole)


def test_rows_are_looked_up() -> None:
    point = SamplePoint(seed=1, k=2)
    table, at = leaf(point, N, M), torch.tensor([[3, 0], [199, 3]])
    made = torch.nn.functional.embedding(at, table.flip(0))
    assert isinstance(made, Shadow)
    for part, whole in zip(made.residue.parts, table.residue.parts):
        assert torch.equal(part, whole.flip(0)[at])


def one_moved(a: Tensor) -> Tensor:
    made = a.clone()
    made[17, 5] = a[17, 6]
    return made


def mixed(a: Tensor) -> Tensor:
    return torch.cat([a[:, :100], a[:, 100:].flip(0)], 1)


@pytest.mark.parametrize("how", [one_moved, mixed, lambda a: a.tril(), lambda a: a.roll(1), lambda a: a.view(M, N)])
def test_anything_else_is_no_arrangement(how: Callable[[Tensor], Tensor]) -> None:
    point = SamplePoint(seed=1, k=2)
    a = leaf(point, N, M)
    parts = on_demand(how(a))
    assert parts.matrix is None
    value = torch.randn(3, parts.like.shape[1])
    x = Shadow(value, draw_variable(point, value, data=True))
    product = x @ how(a).t()
    assert isinstance(product, Shadow)
    for i, field in enumerate(point.fields):
        expected = field.reduce(x.residue.parts[i] @ how(a.residue.parts[i]).t())
        assert _equal(field, product.residue.parts[i], expected)


def _equal(field: Field, a: Tensor, b: Tensor) -> bool:
    return torch.equal(field.canonical(a), field.canonical(b))


def test_a_copy_is_stored_when_a_part_of_it_is_written() -> None:
    """Views of it follow every write, and what was copied before follows none."""
    point = SamplePoint(seed=1, k=2)
    a, b = leaf(point, N, M), leaf(point, N, M)
    made = a.clone()
    view, before = made[10:20], made.clone()
    made.copy_(b)
    memory = on_demand(made)._source
    assert isinstance(memory, Memory) and isinstance(memory.content, OnDemand), "a copy as a whole stores nothing"
    copied = made.clone()
    made[12].copy_(a[0])
    assert not isinstance(memory.content, OnDemand)
    view[3].mul_(2)
    for i, field in enumerate(point.fields):
        expected = b.residue.parts[i].clone()
        expected[12], expected[13] = a.residue.parts[i][0], field.reduce(2 * expected[13])
        assert _equal(field, on_demand(made)[i], expected) and _equal(field, on_demand(view)[i], expected[10:20])
        assert torch.equal(on_demand(before)[i], a.residue.parts[i])
        assert torch.equal(on_demand(copied)[i], b.residue.parts[i])


def test_products_do_not_outlive_a_write() -> None:
    point = SamplePoint(seed=1, k=2)
    made, value = leaf(point, N, M).clone(), torch.randn(3, M)
    x = Shadow(value, draw_variable(point, value, data=True))
    before = x @ made.t()
    made[0].mul_(3)
    after = x @ made.t()
    assert isinstance(before, Shadow) and isinstance(after, Shadow)
    for i, field in enumerate(point.fields):
        assert _equal(field, after.residue.parts[i][:, 0], field.reduce(3 * before.residue.parts[i][:, 0]))
        assert _equal(field, after.residue.parts[i][:, 1:], before.residue.parts[i][:, 1:])


def test_results_and_deep_copies_do_not_follow_writes() -> None:
    point = SamplePoint(seed=1, k=2)
    made = leaf(point, N, M).clone()
    of_copy = copy.deepcopy(made)
    made[0].mul_(2)
    results = [made.reshape(M, N).clone(), made.flatten() * 1, made.expand(1, N, M).clone(), copy.deepcopy(made)]
    pair = copy.deepcopy([made, made[3]])
    before = [[part.clone() for part in x.residue.parts] for x in (*results, of_copy)]
    pair[0][3].mul_(5)
    made.mul_(3)
    for x, parts in zip((*results, of_copy), before):
        assert all(torch.equal(a, b) for a, b in zip(x.residue.parts, parts))
    for field, part, whole in zip(point.fields, pair[1].residue.parts, results[3].residue.parts):
        assert _equal(field, part, field.reduce(5 * whole[3]))
