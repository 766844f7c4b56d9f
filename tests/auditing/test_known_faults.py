"""Correctness bugs of `torch.compile` that are fixed are refuted where they are planted again."""

from __future__ import annotations

import pytest

from foldproof import Kind
from tests.auditing.known_faults import KNOWN
from tests.auditing.known_faults.measure import STEP, audit, measure


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_fault_is_refuted(name: str) -> None:
    fault = KNOWN[name]
    found = measure(fault)
    assert found.kind is Kind.REFUTED, found.conclusion
    assert not fault.step or (found.way == STEP and found.at.startswith(fault.step)), found.conclusion


@pytest.mark.parametrize("name", KNOWN)
def test_without_the_fault_nothing_is_refuted(name: str) -> None:
    found = audit(KNOWN[name])
    assert found.kind is not Kind.REFUTED, found.conclusion
