"""torchao's own steps, judged as they are: run unmodified on shadows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import fx, nn
from torchao.quantization.pt2e import move_exported_model_to_train

import foldproof
from foldproof import Kind
from foldproof.claim import Why
from tests.qat.qat_programs import (
    CONTROLS,
    Nothing,
    convert_pt2e,
    move_exported_model_to_eval,
    prepare_qat_pt2e,
    prepared,
    trained,
    without_counters,
)

CONV = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


@pytest.mark.parametrize("quantizer", ["C per channel", "D"])
def test_convert(quantizer: str) -> None:
    """PROVED_WITHIN, and rightly: torchao converts with steps of the weight that are 0.4 % off those it trained with.

    In D the folded bias becomes int32 besides.
    """
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5)
    module = without_counters(prepared(CONV, x, CONTROLS[quantizer]()))
    trained, found = module.activation_post_process_1.scale, module.activation_post_process_1.calculate_qparams()[0]
    assert 3e-3 < float((found / trained - 1).abs().max()) < 5e-3
    verdict = foldproof.prove_pass(convert_pt2e, module, (x,))
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    assert verdict.claim is not None and any(h.why is Why.OBSERVED for h in verdict.claim.held)
    assert len(verdict.steps) == (2 if quantizer == "C per channel" else 3)
    assert all("rounded to steps" in step.name and 0 < step.bound < 0.1 for step in verdict.steps)


def prepare(module: fx.GraphModule) -> fx.GraphModule:
    return prepare_qat_pt2e(module, Nothing())


def through_training(module: fx.GraphModule) -> None:
    move_exported_model_to_train(module)
    move_exported_model_to_eval(module)


@pytest.mark.parametrize(
    ("step", "changed", "kind", "where"),
    [
        (prepare, {}, Kind.PROVED, ""),
        (prepare, {"eps": 0.1}, Kind.REFUTED, "output 0"),
        (prepare, {"momentum": 0.3}, Kind.REFUTED, "values written to 1.running_mean"),
        (through_training, {}, Kind.PROVED, ""),
        (through_training, {"eps": 0.1}, Kind.REFUTED, "output 0"),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_batch_norm_is_reset(step: object, changed: dict[str, float], kind: Kind, where: str) -> None:
    """torchao 0.18 resets BatchNorm's eps to 1e-5 and momentum to 0.1; the verdict shows it."""
    torch.manual_seed(0)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **changed))).train(step is prepare)
    x = (torch.randn(2, 3, 5, 5),)
    verdict = foldproof.prove_pass(step, torch.export.export(copy.deepcopy(model), x).module(), x)
    if step is prepare and kind is Kind.PROVED:
        # A second call divides by the root of a statistic of data, and multiplies by it: floats say that it cancels.
        assert verdict.kind is Kind.ROUNDING and "in a second call" in verdict.reason, str(verdict)
        return
    assert verdict.kind is kind, str(verdict)
    assert where in verdict.reason
