"""torchao's own conversion, judged as it is: ``convert_pt2e``, run unmodified on shadows."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import foldproof
from foldproof import Kind
from tests.qat.qat_programs import (
    CONTROLS,
    convert_pt2e,
    move_exported_model_to_eval,
    prepared,
    without_counters,
)

CONV = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def convert(module: fx.GraphModule) -> fx.GraphModule:
    made = convert_pt2e(module)
    move_exported_model_to_eval(made)
    return made


@pytest.mark.parametrize("quantizer", ["C per channel", "D"])
def test_convert(quantizer: str) -> None:
    """PROVED_WITHIN, and rightly: torchao converts with steps of the weight that are 0.4 % off those it trained with.

    In D the folded bias becomes int32 besides.
    """
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 7)
    module = without_counters(prepared(CONV, x, CONTROLS[quantizer]()))
    trained, found = module.activation_post_process_1.scale, module.activation_post_process_1.calculate_qparams()[0]
    assert bool(((found / trained - 1).abs() > 3e-3).all())
    verdict = foldproof.prove_pass(convert, module, (x,))
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    assert any("what observers hold" in note for note in verdict.notes)
    assert len(verdict.steps) == (2 if quantizer == "C per channel" else 3)
    assert all("rounded to steps" in step.name and 0 < step.bound < 0.1 for step in verdict.steps)
