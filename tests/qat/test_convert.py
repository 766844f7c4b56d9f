"""torchao's own conversion, judged as it is: ``convert_pt2e``, run unmodified on shadows."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import foldproof
from foldproof import Kind
from tests.qat.qat_programs import (
    CONTROLS,
    QUANTIZERS,
    convert_pt2e,
    move_exported_model_to_eval,
    prepared,
    without_counters,
)

CONV = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
EXPECTED = {"A": Kind.PROVED, "B per channel": Kind.PROVED, "C": Kind.PROVED, "C per channel": Kind.PROVED} | {
    "D": Kind.PROVED_WITHIN
}


def convert(module: fx.GraphModule) -> fx.GraphModule:
    made = convert_pt2e(module)
    move_exported_model_to_eval(made)
    return made


@pytest.mark.parametrize("quantizer", EXPECTED)
def test_convert(quantizer: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 7)
    module = without_counters(prepared(CONV, x, {**QUANTIZERS, **CONTROLS}[quantizer]()))
    verdict = foldproof.prove_pass(convert, module, (x,))
    assert verdict.kind is EXPECTED[quantizer], str(verdict)
    assert any("what observers hold" in note for note in verdict.notes) == (quantizer != "A")
    if quantizer == "D":  # the folded bias becomes int32
        (step,) = verdict.steps
        assert "rounded to steps" in step.name and 0 < step.bound < 1e-3
