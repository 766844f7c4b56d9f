"""Backward functions written by hand: right ones are proved, wrong ones refuted with a counterexample."""

from __future__ import annotations

import pytest

import foldproof
from foldproof import Kind
from tests.training.functions import CASES

FAULTS = [(name, fault) for name, case in CASES.items() for fault in case.faults]


@pytest.mark.parametrize("name", CASES)
def test_a_right_backward_is_proved(name: str) -> None:
    case = CASES[name]
    verdict = foldproof.prove_step(case.composite, case.function(), case.inputs())
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_wrong_backward_is_refuted(name: str, fault: str) -> None:
    case = CASES[name]
    verdict = foldproof.prove_step(case.composite, case.function(fault), case.inputs())
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.counterexample is not None
    assert "output['gradients']" in str(verdict)
