"""Faults planted into the steps of audits with gradients: each is REFUTED at its step."""

from __future__ import annotations

import pytest

from foldproof import Kind
from tests.auditing.planted import CASES, FAULTS, recorded


@pytest.mark.parametrize("case", CASES)
def test_right_steps_are_proved(case: str) -> None:
    for title, step in recorded(case).items():
        assert step.verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), (title, step.verdict)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refuted_at_its_step(name: str) -> None:
    verdict = FAULTS[name].verdict
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.counterexample is not None
