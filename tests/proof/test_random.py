"""Random programs: nothing is proved of them, and what makes a program random is refuted."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof import Kind, prove

Function = Callable[[Tensor], Tensor]

X = torch.randn(40, generator=torch.Generator().manual_seed(0))


@torch.library.custom_op("foldproof_tests::masked", mutates_args=())
def masked(x: Tensor) -> Tensor:
    return torch.where(torch.rand(40) > 1e-9, x, 0 * x)


@torch.library.custom_op("foldproof_tests::mask", mutates_args=())
def mask(size: int) -> Tensor:
    return torch.rand(size) > 1e-9


@pytest.mark.parametrize("second", [lambda x: F.dropout(x, 0.5), lambda x: x + torch.rand(40)])
def test_a_program_that_becomes_random_is_refuted(second: Function) -> None:
    found = prove(lambda x: x, second, (X,))
    assert found.kind is Kind.REFUTED, str(found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: torch.where(torch.rand(40) > 1e-9, x, 0 * x), lambda x: x),  # as long as no number is that small
        (lambda x: x, lambda x: torch.where(torch.rand(40) > 1e-9, x, 0 * x)),
        (lambda x: x, lambda x: x + 0 * torch.rand(40)),
        (lambda x: F.dropout(x, 0.5), lambda x: x),
        (lambda x: F.dropout(x, 0.5), lambda x: F.dropout(x * 1, 0.5)),
        (lambda x: x + torch.rand(40), lambda x: torch.rand(40) + x),
    ],
)
def test_random_programs_are_undecided(first: Function, second: Function) -> None:
    found = prove(first, second, (X,))
    assert found.kind is Kind.UNDECIDED and "which is random" in found.reason, str(found)


@pytest.mark.parametrize(
    "first",
    [
        lambda x: torch.ops.foldproof_tests.masked(x),
        lambda x: torch.where(torch.ops.foldproof_tests.mask(40), x, 0 * x),
        lambda x: x if random.random() > 1e-9 else 0 * x,
        lambda x: x if np.random.rand() > 1e-9 else 0 * x,
    ],
)
def test_numbers_that_are_drawn_unseen(first: Function) -> None:
    found = prove(first, lambda x: x * 1, (X,))
    assert found.kind is Kind.UNDECIDED and "random" in found.reason, str(found)


def test_random_numbers_that_do_not_count() -> None:
    assert prove(lambda x: F.dropout(x, 0.0), lambda x: x, (X,)).kind is Kind.PROVED
    assert prove(lambda x: F.dropout(x, 1.0), lambda x: 0 * x, (X,)).kind is Kind.PROVED


def test_the_random_state_stays_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    prove(lambda x: x, lambda x: F.dropout(x, 0.5), (X,))
    assert torch.equal(torch.rand(3), expected)
