"""Broken rules: for any mistake in a rule's algebra or guards, the proof withdraws the fold. See `mutants`."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import pytest
import torch
from fusion_programs import assert_unchanged, largest_error, run, snapshot
from mutants import (
    batching,
    channels,
    convolutions,
    dead,
    limits,
    merging,
    motions,
    plans,
    products,
    selections,
    sources,
    wholes,
)
from mutants.mutant import Mutant, Program
from torch import Tensor

import foldproof
from foldproof import Kind
from foldproof.fusion import FuseResult
from foldproof.proof import decide
from foldproof.proof.inquiry import Inquiry
from foldproof.verdict import Verdict

FAMILIES = {
    "source": sources.MUTANTS,
    "channels": channels.MUTANTS,
    "selection": selections.MUTANTS,
    "motion": motions.MUTANTS,
    "convolution": convolutions.MUTANTS,
    "product": products.MUTANTS,
    "merging": merging.MUTANTS,
    "plan": plans.MUTANTS,
    "batching": batching.MUTANTS,
    "dead channels": dead.MUTANTS,
    "limits": limits.MUTANTS,
}
MUTANTS = {f"{family}: {name}": row for family, rows in FAMILIES.items() for name, row in rows.items()}


def not_proved(inquiry: Inquiry) -> Verdict:
    return Verdict(Kind.UNDECIDED, "not proved")


@pytest.fixture
def _proofs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the search for counterexamples, which takes most of the time: only a proof keeps a fold."""
    proofs = [strategy for strategy in decide.STRATEGIES if strategy.__name__.startswith("prove")]
    monkeypatch.setattr(decide, "STRATEGIES", (*proofs, not_proved))


@cache
def truth(program: Program) -> list[Tensor]:
    return run(*program())


def fuse(program: Program, **options: Any) -> FuseResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of axes that do not meet
        return foldproof.fuse(*program(), **options)


def breaks(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in mutant.patches:
        monkeypatch.setattr(part.home, part.name, part.wrong)


def harm(expected: list[Tensor], result: FuseResult, inputs: tuple[Any, ...]) -> float:
    """Return the error of the program; infinite for a result of another shape."""
    after = run(result.program, inputs)
    same = [(t.shape, t.dtype) for t in expected] == [(t.shape, t.dtype) for t in after]
    return largest_error(expected, after) if same else math.inf


def test_there_are_many() -> None:
    assert len(MUTANTS) + len(wholes.MUTANTS) >= 300


@pytest.mark.usefixtures("_proofs_alone")
@pytest.mark.parametrize("name", MUTANTS)
def test_is_withdrawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    expected = truth(mutant.program)
    before, inputs = mutant.program()
    untouched = snapshot(before)
    breaks(mutant, monkeypatch)
    trusting = fuse(mutant.program, passes=mutant.passes, prove=False)
    wrong_by = harm(expected, trusting, inputs)
    assert wrong_by > 1e-3, "the mutant does no harm"
    result = fuse(mutant.program, passes=mutant.passes)
    after = run(result.program, inputs)
    error = largest_error(expected, after)
    assert error < 1e-5
    assert result.verdict.kind is Kind.PROVED
    wrong = {rewrite.nodes for rewrite in trusting.rewrites} - {rewrite.nodes for rewrite in result.rewrites}
    assert wrong, "no fold was withdrawn"
    if not result.rewrites:
        assert all(torch.equal(a, b) for a, b in zip(expected, after, strict=True))
    assert_unchanged(untouched, before)


@pytest.mark.parametrize("name", wholes.MUTANTS)
def test_is_refuted_as_a_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = wholes.MUTANTS[name]
    assert fuse(mutant.program, passes=mutant.passes).verdict.kind is Kind.PROVED
    breaks(mutant, monkeypatch)
    result = fuse(mutant.program, passes=mutant.passes)
    assert {rewrite.verdict.kind for rewrite in result.rewrites} == {Kind.PROVED}
    assert result.verdict.kind is Kind.REFUTED


def raises(*_: object) -> Tensor:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("mutant", "reason"),
    [
        (convolutions.rows(lambda w, s: w[:-1]), "can't be computed: RuntimeError"),
        (convolutions.rows(lambda w, s: torch.cat([w, w])), "can't be computed: RuntimeError"),
        (convolutions.rows(raises), "can't be computed: RuntimeError: out of order"),
        (convolutions.rows(lambda w, s: w * math.nan), "would not be finite"),
        (convolutions.rows(lambda w, s: w.long()), "was withdrawn"),
        (convolutions.bias(lambda b, a, c: c[:-1]), "was withdrawn"),
        (convolutions.bias(lambda b, a, c: c.sum()), "was withdrawn"),
        (plans.edits(lambda found: []), "was withdrawn"),
    ],
)
def test_what_is_no_constant_is_declined(mutant: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that makes nonsense costs a fold, but does not crash."""
    monkeypatch.setattr(mutant.home, mutant.name, mutant.wrong)
    result = fuse(convolutions.conv)
    assert result.rewrites == ()
    assert [reason in declined.reason for declined in result.declined] == [True]
