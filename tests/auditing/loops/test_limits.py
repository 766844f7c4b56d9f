"""Loops that are too long to be recorded are told, at no cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import foldproof
from foldproof.auditing.loops import LOWERING, program
from foldproof.verdict import Kind


def test_a_long_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MAX_ITERATIONS", 100)
    found = foldproof.audit(nn.Softmax(-1), (torch.randn(7, 16),), locate=False)
    lowering = next(step for step in found.steps if step.name == LOWERING)
    assert lowering.verdict.kind is Kind.UNDECIDED
    assert "112 iterations, too many to be recorded" in lowering.verdict.reason


def test_a_pool_far_larger_than_its_input() -> None:
    """Inductor's loop runs over the whole window, of which all but a few elements are masked."""
    found = foldproof.audit(nn.AvgPool2d(2048, ceil_mode=True), (torch.randn(1, 16, 4, 4),), locate=False)
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}
