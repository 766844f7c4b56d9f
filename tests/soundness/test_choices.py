"""Choices by value: other branches are visited, or named as uncovered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.proof.coverage import Coverage
from foldproof.rounding import Float64
from foldproof.rounding.constant_noise import mark

from .programs import Module, normal

X = normal(6, 8)
TABLE = torch.arange(10.0).sin()
CUT = TABLE * (torch.arange(10) < 9)
MASK = torch.full((6, 8), -1e9).triu(3)


class Experts(nn.Module):
    def __init__(self, negated: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.negated = nn.Linear(8, 4), negated
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).topk(1, -1).indices.squeeze(-1)
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            y = -expert(x) if k == self.negated else expert(x)
            out = out + y * (chosen == k)[:, None]
        return out


DIFFERENT: dict[str, tuple[Any, Any, Tensor]] = {
    "beyond a threshold": (lambda x: torch.where(x > 20, 2 * x, x), lambda x: torch.where(x > 20, 3 * x, x), X),
    "below a threshold tensor": (
        lambda x: torch.where(x < torch.tensor(-9.0), 2 * x, x),
        lambda x: torch.where(x < torch.tensor(-9.0), x * 0, x),
        X,
    ),
    "the tail of huber": (
        lambda x: F.huber_loss(x, torch.zeros_like(x), delta=5.0),
        lambda x: torch.where(x.abs() < 5, 0.5 * x * x, 5 * (x.abs() - 2.0)).mean(),
        X,
    ),
    "a table that is cut off": (
        lambda x: TABLE[x.abs().clamp(max=9).long()],
        lambda x: CUT[x.abs().clamp(max=9).long()],
        X,
    ),
    "wrapping against saturating": (
        lambda x: (x * 10).round().to(torch.int8).float(),
        lambda x: (x * 10).round().clamp(-128, 127).to(torch.int8).float(),
        X,
    ),
    "a dead relu": (lambda x: x + F.relu(x - 100), lambda x: x + 2 * F.relu(x - 100), X),
    "another slope": (lambda x: F.leaky_relu(x + 50, 0.1), lambda x: F.leaky_relu(x + 50, 0.2), X),
    "beside a mask": (lambda x: x + MASK, lambda x: x * 1.01 + MASK, X),
    "one expert": (Experts(None), Experts(3), normal(3, 8)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_branch_is_visited(name: str) -> None:
    before, after, x = DIFFERENT[name]
    verdict = foldproof.prove(before, after, (x,))
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_what_was_not_seen_is_named() -> None:
    """No tried input contains twenty million."""

    def some(x: Tensor) -> Tensor:
        return torch.count_nonzero(x > 2e7, -1)[..., None] > 0

    def one(x: Tensor) -> Tensor:
        return torch.where(some(x), 2 * x, x)

    def other(x: Tensor) -> Tensor:
        return torch.where(some(x), x + x, x)

    far = foldproof.prove(one, other, (X,))
    assert far.kind is Kind.PROVED and far.claim is not None
    assert far.claim.uncovered == ("gt",) and not far.claim.is_general and "never seen" in str(far.claim)


def test_a_comparison_of_equal_values_is_no_choice() -> None:
    """It is a function of its operands, as long as no other operator follows its values."""
    for asks in (lambda x: x > 2e7, lambda x: (x > 2e7).any(-1, True), lambda x: (x < 2e7).all()):
        twice = [lambda x, asks=asks, y=y: torch.where(asks(x), y(x), x) for y in (lambda x: 2 * x, lambda x: x + x)]
        found = foldproof.prove(*twice, (X,))
        assert found.kind is Kind.PROVED and found.claim is not None and found.claim.is_general


IMAGE = normal(1, 2, 8, 8)
WIDE = normal(4, 64)
PLACES = torch.zeros(4, 64, dtype=torch.long)
ONE_SIGNED: dict[str, tuple[Any, Any, Tensor]] = {
    "a maximum": (lambda x: x.amax(-1), lambda x: x.amax(-1).relu(), WIDE),
    "the maximum of all": (lambda x: x.max(), lambda x: x.relu().max(), WIDE),
    "pooling": (lambda x: F.adaptive_max_pool2d(x, 1), lambda x: F.adaptive_max_pool2d(x.relu(), 1), IMAGE),
    "a minimum": (lambda x: x.amin().clamp(max=0), lambda x: x.amin(), WIDE),
    "a logarithm of sums": (lambda x: x.logsumexp(-1), lambda x: x.logsumexp(-1).relu(), WIDE),
    "a scatter with a maximum": (
        lambda x: torch.zeros(4, 1).to(x).scatter_reduce(1, PLACES, x, "amax"),
        lambda x: torch.zeros(4, 1).to(x).scatter_reduce(1, PLACES, x, "amax", include_self=False),
        WIDE,
    ),
    "a median": (lambda x: x.median(-1).values + x.amax(-1), lambda x: x.median(-1).values + x.amax(-1).abs(), WIDE),
}


@pytest.mark.parametrize("name", ONE_SIGNED)
def test_inputs_of_one_sign_are_tried(name: str) -> None:
    before, after, x = ONE_SIGNED[name]
    verdict = foldproof.prove(before, after, (x,))
    assert verdict.kind is Kind.REFUTED, verdict


LEAST = torch.finfo(torch.float32).min
SCORES, CAUSAL = normal(4, 4), torch.full((4, 4), LEAST).triu(1)


def masked(s: Tensor, m: Tensor) -> Tensor:
    return (s + m).softmax(-1)


LIMITED: dict[str, Any] = {
    "a mask of the program's own": lambda s, m: masked(s, m.tril() + torch.full((4, 4), LEAST).to(s).triu(1)),
    "its effect": lambda s, m: masked(s, m).tril(),
    "a mask that is not read": lambda s, m: masked(s, torch.full((4, 4), LEAST).to(s).triu(1)),
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits_of_the_dtype_are_numbers(name: str) -> None:
    """A mask among the inputs may hold anything; the one in a program is its own."""
    assert foldproof.prove(masked, LIMITED[name], (SCORES, CAUSAL)).kind is Kind.REFUTED
    assert foldproof.prove(masked, lambda s, m: masked(m, s), (SCORES, CAUSAL)).kind is Kind.PROVED
    alone = foldproof.prove(lambda s: LIMITED[name](s, CAUSAL), lambda s: masked(s, CAUSAL), (SCORES,))
    assert alone.kind in (Kind.PROVED, Kind.ROUNDING), alone


def test_a_maximum_with_limits_is_no_identity() -> None:
    verdict = foldproof.prove(torch.maximum, lambda s, m: s * 1.0, (SCORES, torch.full((4, 4), LEAST)))
    assert verdict.kind is Kind.REFUTED, verdict


AT_NUMBERS: dict[str, tuple[Any, Any]] = {
    "hardshrink": (lambda x: F.hardshrink(x, 0.5), lambda x: torch.where(x.abs() >= 0.5, x, 0.0)),
    "threshold": (lambda x: F.threshold(x, 0.5, 0.25), lambda x: torch.where(x >= 0.5, x, 0.25)),
    "a sign": (lambda x: x.sign(), lambda x: torch.where(x > 0, 1.0, -1.0)),
    "at least": (lambda x: torch.where(x > 2, x * x, 2 * x - 1), lambda x: torch.where(x >= 2, x * x, 2 * x - 1)),
    "equal": (lambda x: torch.where(x == 1.5, 7.0, x), lambda x: x * 1.0),
    "a negative number": (lambda x: torch.where(x + 1.5 > 0, x, 1.0), lambda x: torch.where(x + 1.5 >= 0, x, 1.0)),
}
SAME_AT_NUMBERS: dict[str, tuple[Any, Any]] = {
    "hardshrink": (lambda x: F.hardshrink(x, 0.5), lambda x: torch.where(x.abs() > 0.5, x, 0.0)),
    "threshold": (lambda x: F.threshold(x, 0.5, 0.25), lambda x: torch.where(x > 0.5, x, 0.25)),
    "at least": (lambda x: torch.where(x > 2, x * x, 2 * x), lambda x: torch.where(x >= 2, x * x, 2 * x)),
    "a quotient": (lambda x: torch.where(x == 0, 1.0, x.sin() / x), lambda x: x.sin() / x),
}


OF_TWO: dict[str, tuple[Any, Any]] = {
    "a gate": (lambda x, y: torch.where(x > 0, y, 0.0), lambda x, y: torch.where(x >= 0, y, 0.0)),
    "the gate second": (lambda y, x: torch.where(x > 0, y, 0.0), lambda y, x: torch.where(x >= 0, y, 0.0)),
    "a product": (lambda x, y: torch.where(x == 0, 1.0, x) * y, lambda x, y: x * y),
}


@pytest.mark.parametrize("name", OF_TWO)
def test_numbers_are_in_another_place_of_each_input(name: str) -> None:
    inputs = (torch.randn(4, 6), torch.randn(4, 6))
    assert foldproof.prove(*OF_TWO[name], inputs).kind is Kind.REFUTED
    assert foldproof.prove(OF_TWO[name][0], lambda x, y: OF_TWO[name][0](x, y) * 1, inputs).kind is Kind.PROVED


@pytest.mark.parametrize("name", AT_NUMBERS)
def test_inputs_equal_to_compared_numbers_are_tried(name: str) -> None:
    verdict = foldproof.prove(*AT_NUMBERS[name], (X,))
    assert verdict.kind is Kind.REFUTED, verdict


@pytest.mark.parametrize("name", SAME_AT_NUMBERS)
def test_programs_that_agree_at_compared_numbers(name: str) -> None:
    verdict = foldproof.prove(*SAME_AT_NUMBERS[name], (X,))
    assert verdict.kind is Kind.PROVED, verdict


class ByParameter(nn.Module):
    """A choice by the sign of a parameter, which is positive here."""

    def __init__(self, chooses: bool) -> None:
        super().__init__()
        self.b, self.chooses = nn.Parameter(torch.ones(8)), chooses

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.b > 0, x, -x) if self.chooses else x * 1.0


def test_choices_by_parameters_are_named_in_a_claim_for_all_of_them() -> None:
    verdict = foldproof.prove(ByParameter(True), ByParameter(False), (normal(3, 8),))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None, verdict
    assert verdict.claim.uncovered == ("gt",) and "never seen" in str(verdict.claim), verdict


def test_covered_choices_are_not_named() -> None:

    def absolute(x: Tensor) -> Tensor:
        x[x > 0] = 0 * x[x > 0]
        return -x

    x = torch.where(X == 0, 1, X)
    found = foldproof.prove(lambda x: absolute(x.clone()), lambda x: absolute(x + 0), (x,))
    assert found.kind is Kind.PROVED and found.claim is not None and found.claim.uncovered == ()
    assert "gt" in found.claim.choices and not found.claim.is_general


INTEGERS: dict[str, tuple[Any, Any, tuple[Tensor, ...]]] = {
    "a square": (lambda i: i * i, lambda i: 2 * i, (torch.tensor([0, 2]),)),
    "a mask that is all true": (lambda x, m: x * m, lambda x, m: x, (X, torch.ones(6, 8, dtype=torch.bool))),
    "a mask that is all false": (lambda x, m: x.masked_fill(m, 0), lambda x, m: x, (X, torch.zeros(8).bool())),
    "indices in order": (lambda x, i: x[i], lambda x, i: x, (X, torch.arange(6))),
    "positions": (lambda x, p: x + p, lambda x, p: x + torch.arange(8), (X, torch.arange(8))),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_other_integers_are_tried(name: str) -> None:
    verdict = foldproof.prove(*INTEGERS[name])
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_equal_sizes_are_told_apart() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1) / x.shape[0]

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    x = normal(4, 4)
    sizes = {"x": {0: torch.export.Dim("a"), 1: torch.export.Dim("b")}}
    before, after = (torch.export.export(m, (x,), dynamic_shapes=sizes) for m in (Sum(), Mean()))
    assert foldproof.prove(before, after, (x,)).kind is Kind.REFUTED
    assert foldproof.prove(after, after, (x,)).kind is Kind.PROVED


def test_integers_that_leave_the_result_open_refute_nothing() -> None:
    """Of two writes to one row, either may win: other indices are tried, and repeated ones decide nothing."""
    rows, at = normal(3, 8), torch.tensor([0, 2, 1])
    backwards = lambda x, i, y: x.index_copy(0, i.flip(0), y.flip(0))  # noqa: E731
    assert foldproof.prove(lambda x, i, y: x.index_copy(0, i, y), backwards, (X, at, rows)).kind is Kind.PROVED


PIECES: dict[str, Any] = {
    "clamp by name": lambda x: torch.clamp(x, max=1.0),
    "clamp by tensor": lambda x: torch.clamp(x, torch.tensor(-1.0), torch.tensor(1.0)),
    "clamp_min_": lambda x: (x * 1).clamp_min_(0.5),
    "hardtanh by name": lambda x: F.hardtanh(x, min_val=-0.5, max_val=0.5),
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "softplus by name": lambda x: F.softplus(x, beta=2.0, threshold=1.0),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1])),
    "huber": lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none", delta=0.7),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"),
    "maximum": lambda x: torch.maximum(x, torch.zeros(8)),
    "topk": lambda x: x.topk(2, -1).values,
    "sort": lambda x: x.sort(descending=True, stable=True).values,
    "amax of several": lambda x: x.amax((0, 1)),
    "max": lambda x: x.max(),
    "kthvalue": lambda x: x.kthvalue(2, dim=0).values,
    "max_pool": lambda x: F.max_pool2d(x[None], 2),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
    "to int8": lambda x: x.to(torch.int8),
}


@pytest.mark.parametrize("name", PIECES)
def test_outcomes_can_be_told(name: str) -> None:
    coverage = Coverage()
    x = mark(X.double(), torch.float32, data=True)
    with Float64(), coverage.watching("first"):
        PIECES[name](x)
    assert not coverage.unreadable
    assert coverage.uncovered, "one draw shows not every outcome of every element"


def test_a_part_that_runs_by_itself_is_undecided_in_one_sentence() -> None:
    def either(factor: float) -> nn.Module:
        return Module(lambda s, x: torch.cond(x.sum() > -1e3, lambda x: x * 2, lambda x: x * factor, (x,)))

    verdict = foldproof.prove(either(3.0), either(4.0), (X,))
    assert verdict.kind is Kind.UNDECIDED and "no rule for cond" in verdict.reason, str(verdict)
    # In a graph it is run. The other branch is out of reach of ordinary inputs, and the limit is one that is tried.
    verdict = foldproof.prove(*(torch.export.export(either(factor), (X,)) for factor in (3.0, 4.0)), (X,))
    assert verdict.kind is Kind.REFUTED, str(verdict)


AT_EDGES: dict[str, tuple[Any, Any, tuple[Tensor, ...]]] = {
    "the last row": (lambda x, i: x[i], lambda x, i: x[i.clamp(max=1)], (normal(3, 4), torch.tensor([0, 1]))),
    "overflow": (lambda i: (i * i).float(), lambda i: i.float() * i.float(), (torch.tensor([3, 5], dtype=torch.int8),)),
    "overflow of a sum": (
        lambda i: (i + 100).float(),
        lambda i: i.float() + 100,
        (torch.tensor([3, 5], dtype=torch.uint8),),
    ),
    "the first token": (
        lambda i: TABLE[i],
        lambda i: TABLE.roll(1)[(i + 1) % 10] + (i == 0),
        (torch.tensor([2, 3, 4]),),
    ),
}


@pytest.mark.parametrize("name", AT_EDGES)
def test_integers_at_the_edges_are_tried(name: str) -> None:
    before, after, given = AT_EDGES[name]
    verdict = foldproof.prove(before, after, given)
    assert verdict.kind is Kind.REFUTED, str(verdict)
    assert foldproof.prove(before, before, given).kind is Kind.PROVED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: x.sin() + x[x >= 2].sum(), torch.sin),
        (lambda x: x.sin() + x.masked_select(x >= 2).sum(), torch.sin),
        (lambda x: x.sin() + (x[x >= 2].shape[0] > 0), torch.sin),
        (lambda x: torch.cat([x.flatten(), x[x >= 2]]), torch.flatten),
        (lambda x: x.sin() + len((x >= 2).nonzero()), torch.sin),
    ],
)
def test_an_empty_selection_is_a_choice(first: Any, second: Any) -> None:
    """Nothing is selected at inputs below 1, and something is at others."""
    assert foldproof.prove(first, second, (torch.rand(4, 3),)).kind is Kind.REFUTED
