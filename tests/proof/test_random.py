"""Random programs: draws are functions of the generator's state, and whatever else is random proves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        (lambda x: x, lambda x: x + 0 * torch.rand(40)),  # the next draw is another one
        (lambda x: x if bool((torch.rand(40) > 1e-9).all()) else 0 * x, lambda x: x),
        (lambda x: x * (torch.randn(40) > 9).any(), lambda x: 0 * x),
        (lambda x: x + torch.randint(0, 9, (40,)), lambda x: torch.randint(0, 9, (40,)) + x),
        (lambda x: x[torch.randperm(40)], lambda x: x[torch.randperm(40)] * 1),
    ],
)
def test_random_programs_are_undecided(first: Function, second: Function) -> None:
    found = prove(first, second, (X,))
    assert found.kind is Kind.UNDECIDED and "which is random" in found.reason, str(found)


def twice(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.dropout(x, 0.5), F.dropout(2 * x, 0.5)


def the_other_way(x: Tensor) -> tuple[Tensor, Tensor]:
    second = F.dropout(2 * x, 0.5)
    return F.dropout(x, 0.5), second


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: F.dropout(x, 0.5), lambda x: F.dropout(x * 1, 0.5)),
        (lambda x: x + torch.rand(40), lambda x: torch.rand(40) + x),
        (lambda x: x + torch.randn_like(x), lambda x: torch.randn_like(2 * x) + x),
        (lambda x: x * (torch.rand_like(x) > 0.5), lambda x: (torch.rand_like(x) > 0.5) * x),
        (lambda x: torch.where(torch.rand_like(x) > 0.5, x, 0), lambda x: x * (torch.rand_like(x) > 0.5)),
        (twice, lambda x: twice(x + 0)),
        (lambda x: F.alpha_dropout(x, 0.5, True), lambda x: F.alpha_dropout(x * 1, 0.5, True)),
        (lambda x: torch.empty_like(x).uniform_(1, 2) * x, lambda x: x * torch.empty_like(x).uniform_(1, 2)),
        (lambda x: torch.bernoulli(x.sigmoid()), lambda x: torch.bernoulli((0 + x).sigmoid())),
        (
            lambda x: x * torch.empty_like(x).bernoulli_(0.5).bool(),
            lambda x: x * (torch.empty_like(x).bernoulli_(0.5) != 0),
        ),
        (lambda x: torch.native_dropout(x, 0.1, True)[0], lambda x: F.dropout(x * 1, 0.1)),
        (lambda x: torch.native_dropout(x, 0.5, True)[1] * x, lambda x: F.dropout(x, 0.5) / 2),
        (lambda x: torch.native_dropout(x, 1.0, True)[0], lambda x: torch.native_dropout(x + x, 1.0, True)[0]),
    ],
)
def test_equal_draws_are_proved(first: Any, second: Any) -> None:
    found = prove(first, second, (X,))
    assert found.kind is Kind.PROVED, str(found)
    assert any("the same random numbers in the same order" in note for note in found.notes)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: F.dropout(x, 0.5), lambda x: x),
        (lambda x: F.dropout(x, 0.5), lambda x: F.dropout(x, 0.4)),
        (lambda x: torch.native_dropout(x, 0.5, True)[0], lambda x: torch.native_dropout(x, 0.4, True)[0]),
        (lambda x: torch.native_dropout(x, 0.5, True)[0], lambda x: x * torch.native_dropout(x, 0.5, True)[1]),
        (lambda x: F.dropout(x, 0.01), lambda x: F.dropout(x, 0.011)),
        (lambda x: F.dropout(x, 0.5), lambda x: F.dropout(x, 0.5) * 0.5),
        (twice, the_other_way),
        (twice, lambda x: (lambda mask: (x * mask, 2 * x * mask))(F.dropout(torch.ones(40), 0.5))),
        (lambda x: x + torch.rand(40), lambda x: x + torch.randn(40)),
        (lambda x: torch.empty_like(x).uniform_(1, 2) * x, lambda x: torch.empty_like(x).uniform_(1, 2.001) * x),
        (lambda x: torch.bernoulli(x.sigmoid()), lambda x: torch.bernoulli((2 * x).sigmoid())),
    ],
)
def test_other_draws_are_refuted(first: Any, second: Any) -> None:
    found = prove(first, second, (X,))
    assert found.kind is Kind.REFUTED, str(found)


class Remembering(nn.Module):
    """Dropout that may keep its mask from call to call."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(40))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.keeps = keeps

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.empty_like(x).bernoulli_(0.5)
        if not self.keeps or int(self.calls) == 0:
            self.mask.copy_(drawn)
        self.calls.add_(1)
        return x * self.mask


def test_a_mask_that_is_kept_is_another_one_in_the_second_call() -> None:
    assert prove(Remembering(False), Remembering(False), (X,)).kind is Kind.PROVED
    assert prove(Remembering(False), Remembering(True), (X,)).kind is Kind.REFUTED


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


def drawn_as(shape: tuple[int, int], strides: tuple[int, int]) -> Function:
    return lambda x: x.reshape(shape) * torch.empty_strided(shape, strides).uniform_()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1)])
@pytest.mark.parametrize("stride", [1, 3, 40])
def test_the_stride_of_one_element_is_nobodys_order(shape: tuple[int, int], stride: int) -> None:
    strides = (stride, 1) if shape[0] == 1 else (1, stride)
    found = prove(drawn_as(shape, (1, 1)), drawn_as(shape, strides), (X,))
    assert found.kind is Kind.PROVED, str(found)


def test_another_order_of_elements_is_another_draw() -> None:
    assert prove(drawn_as((5, 8), (8, 1)), drawn_as((5, 8), (1, 5)), (X,)).kind is not Kind.PROVED


def dropped(x: Tensor) -> Tensor:
    return F.dropout(x.reshape(5, 8), 0.5)


def all_finite(x: Tensor) -> Tensor:
    return ((x == x) * (x.abs() != float("inf"))).logical_not().any().logical_not()


SAME_QUESTIONS: dict[str, tuple[Function, Function]] = {
    "finite": (lambda x: torch.isfinite(dropped(x)).all(), lambda x: all_finite(dropped(x))),
    "infinite": (lambda x: torch.isinf(dropped(x)), lambda x: ~~torch.isinf(1 * dropped(x))),
    "some, not none": (lambda x: (dropped(x) > 0).any(-1), lambda x: ~(~(dropped(x) > 0)).all(-1)),
    "some of several dimensions": (lambda x: (dropped(x) > 0).any(), lambda x: ~(~(dropped(x) > 0)).all()),
    "both": (
        lambda x: torch.mul(*(lambda d: (d > 0, d < 1))(dropped(x))),
        lambda x: torch.logical_and(*(lambda d: (d > 0, d < 1))(dropped(x))),
    ),
    "in arithmetic": (
        lambda x: (lambda d: d * torch.isnan(d).any(0))(dropped(x)),
        lambda x: (lambda d: torch.isnan(d).any(0, keepdim=True) * d)(dropped(x)),
    ),
}


@pytest.mark.parametrize("name", SAME_QUESTIONS)
def test_questions_about_random_numbers_are_functions(name: str) -> None:
    found = prove(*SAME_QUESTIONS[name], (X,))
    assert found.kind is Kind.PROVED, str(found)


OTHER_QUESTIONS: dict[str, tuple[Function, Function]] = {
    "all, not some": (lambda x: (dropped(x) > 0).any(-1), lambda x: (dropped(x) > 0).all(-1)),
    "other rows": (lambda x: (dropped(x) > 0).any(-1)[:5], lambda x: (dropped(x) > 0).any(0)[:5]),
    "nan, not infinite": (lambda x: torch.isnan(dropped(x)), lambda x: torch.isinf(dropped(x))),
    "either, not both": (
        lambda x: torch.mul(*(lambda d: (d > 0, d < 1))(dropped(x))),
        lambda x: torch.logical_or(*(lambda d: (d > 0, d < 1))(dropped(x))),
    ),
    "one of them": (lambda x: (dropped(x) > 0).any(), lambda x: (dropped(x)[:, 1:] > 0).any()),
    "the other infinity": (lambda x: dropped(x) == float("inf"), lambda x: dropped(x) == -float("inf")),
    "another comparison": (lambda x: dropped(x) == float("inf"), lambda x: dropped(x) < float("inf")),
}


@pytest.mark.parametrize("name", OTHER_QUESTIONS)
def test_other_questions_are_not_proved(name: str) -> None:
    found = prove(*OTHER_QUESTIONS[name], (X,))
    assert found.kind not in (Kind.PROVED, Kind.PROVED_WITHIN, Kind.ROUNDING), str(found)


def softmax(x: Tensor) -> Tensor:
    """Return what overflows where PyTorch's softmax does not."""
    return x.exp() / x.exp().sum(-1, True)


OVERFLOWS: dict[str, tuple[Function, Function]] = {
    "in half precision": (lambda x: torch.isinf(x.half()), lambda x: torch.isinf(x)),
    "of random numbers in half precision": (
        lambda x: torch.isinf(dropped(x).half()),
        lambda x: torch.isinf(dropped(x)),
    ),
    "of a ratio": (lambda x: torch.isnan(softmax(dropped(x))), lambda x: torch.isnan(F.softmax(dropped(x), -1))),
    "of a ratio, as one value": (
        lambda x: torch.isfinite(softmax(dropped(x))).all(),
        lambda x: torch.isfinite(F.softmax(dropped(x), -1)).all(),
    ),
    "by a comparison": (
        lambda x: (lambda s: s != s)(softmax(dropped(x))),
        lambda x: (lambda s: s != s)(F.softmax(dropped(x), -1)),
    ),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_what_overflows_elsewhere_is_not_equal_for_all_inputs(name: str) -> None:
    found = prove(*OVERFLOWS[name], (X,))
    assert found.kind is not Kind.PROVED or (found.claim is not None and not found.claim.is_general), str(found)
