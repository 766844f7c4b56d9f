"""Audits of OpenVINO: the conversion, the transformations for all devices, and those of the CPU plugin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.auditing.taps import openvino as tap

from .test_onnx_graphs import Attention, X, convolutions, names

ov = pytest.importorskip("openvino")

COMMON = "apply_moc_transformations"


@pytest.mark.parametrize("model", ["convolutions", "attention"])
def test_each_stage_is_proved(model: str) -> None:
    torch.manual_seed(0)
    net, x = (convolutions(), X) if model == "convolutions" else (Attention().eval(), torch.randn(2, 5, 16))
    found = foldproof.audit(net, (x,), compiler="openvino", locate=False)
    assert {step.verdict.kind for step in found.steps} <= {Kind.PROVED, Kind.PROVED_WITHIN}, str(found)
    assert {tap.CONVERSION, COMMON} <= {*names(found)} and tap.PLUGIN in [step.name for step in found.steps]
    assert found.kind is Kind.ROUNDING


def test_a_wrong_transformation_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino import _offline_transformations, opset14

    original = _offline_transformations.apply_moc_transformations

    def wrong(model: Any, *args: Any, **kwargs: Any) -> None:
        original(model, *args, **kwargs)
        relu = next(op for op in model.get_ops() if op.get_type_name() == "Relu")
        ov.utils.replace_node(relu, opset14.sigmoid(relu.input_value(0)))

    monkeypatch.setattr(_offline_transformations, COMMON, wrong)
    found = foldproof.audit(convolutions(), (X,), compiler="openvino", locate=False)
    assert [step.name for step in found.refuted] == [COMMON], str(found)
    assert found.conclusion.startswith(f"wrong: the pass {COMMON} changes the meaning of the model")


class Positions(nn.Module):
    """The place of each positive number among those before it, as position ids are computed from a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).cumsum(0) * 1.0


def test_booleans_are_added_up_in_bytes() -> None:
    """OpenVINO 2026.4.1 counts to 255, and goes on with 0."""
    right, wrong = (
        foldproof.audit(Positions(), (torch.randn(n).abs(),), compiler="openvino", locate=False) for n in (200, 300)
    )
    assert not right.refuted, str(right)
    if wrong.end_to_end is not None and wrong.end_to_end.kind is not Kind.REFUTED:
        pytest.skip("this release adds up booleans as PyTorch does")
    assert [step.name for step in wrong.refuted] == [tap.CONVERSION], str(wrong)
