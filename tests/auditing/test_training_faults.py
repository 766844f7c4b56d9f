"""Faults planted into the steps of audits with gradients: each is REFUTED at its step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
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


class Asking(nn.Module):
    """Is another function while it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y * 2 if torch.compiler.is_compiling() else y * 3


@pytest.mark.parametrize("training", [False, True])
def test_what_dynamo_captures_is_the_first_stage_that_is_wrong(training: bool) -> None:
    """Every pass keeps the meaning of the graph, which is not the model's."""
    found = foldproof.audit(Asking(), (torch.randn(3, 4),), training=training, locate=False)
    assert found.kind is Kind.REFUTED and found.conclusion.startswith("wrong above the passes: every graph pass")
    assert "the first stage that is wrong is dynamo, the graph that Dynamo captures" in found.conclusion
    wrong = [stage.name for stage in found.stages if stage.kind is Kind.REFUTED]
    assert wrong == ["dynamo", "aot_eager", "aot_eager_decomp_partition", "inductor"]
