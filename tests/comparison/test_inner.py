"""Values inside of files: a mistake that is in the file, and not in its exporter, is located, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from tests.comparison.test_candidates import onnx, pte, xml


class Layers(nn.Module):
    def __init__(self, bug: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bug = bug
        self.conv, self.bn = nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x))).mean(-1)
        x = self.norm(x) if self.bug != "norm" else F.layer_norm(x, (8,), self.norm.weight, self.norm.bias, 0.1)
        out: Tensor = self.out(F.silu(x) if self.bug != "silu" else F.hardswish(x))
        return out


@pytest.mark.parametrize("make", [onnx, xml, pte], ids=lambda make: make.__name__)
def test_a_mistake_in_a_file_is_located(make: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = Layers().eval(), (torch.randn(6, 4, 9),)
    for bug, operator in (("norm", "aten.layer_norm.default"), ("silu", "aten.silu.default")):
        path = tmp_path / f"{bug}.{make.__name__}"
        make(Layers(bug).eval(), inputs, path)
        found = foldproof.compare(model, path, inputs, trials=2)
        assert found.kind is Kind.REFUTED and found.verdict.difference is not None
        assert found.verdict.difference.operator == operator
        assert found.sources[0].share is not None and found.sources[0].share > 0.9
        assert "inside of the file" in found.found and "compil" not in found.found


@pytest.mark.parametrize("make", [onnx, xml, pte], ids=lambda make: make.__name__)
def test_rounding_in_a_file_is_measured(make: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = Layers().eval(), (torch.randn(6, 4, 9),)
    make(model, inputs, tmp_path / f"right.{make.__name__}")
    found = foldproof.compare(model, tmp_path / f"right.{make.__name__}", inputs, trials=2)
    assert found.kind is Kind.ROUNDING
    assert found.identical or (found.sources[0].measured and "inside of the file" in found.found)


class Whole(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_integers_are_located() -> None:
    x = torch.arange(-8, 8, dtype=torch.int8).reshape(4, 4)
    found = foldproof.compare(
        Whole(lambda x: (x.amin(-1) + 1) * 2), Whole(lambda x: (x.clamp_min(-5).amin(-1) + 1) * 2), (x,), trials=1
    )
    assert found.kind is Kind.REFUTED and found.verdict.difference is not None
    assert found.verdict.difference.operator == "aten.amin.default" and "noise floor" not in str(found)
