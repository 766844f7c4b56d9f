"""Inductor's wrong answers that no proof decides are traced to a step all the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind


class ToZero(nn.Module):
    """0 times a number, which is nan for nan and infinity."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + 1


class Resized(nn.Module):
    """Two pixels, resized by 1.3: PyTorch's own decomposition computes the coordinates in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=1.3, mode="nearest")


class Shifted(nn.Module):
    """Every row takes the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        x[1:] = x[:-1].clone()
        return x


@pytest.mark.parametrize(
    ("model", "x", "culprit"),
    [
        (ToZero(), torch.tensor([1.0, float("nan"), float("inf"), -2.0]), "the pass constant_fold_uniform_value"),
        (
            Resized(),
            torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64),
            "AOTAutograd's decomposition of aten.upsample_nearest2d.default",
        ),
        (
            Shifted(),
            torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)),
            "the pass reinplace_inplaceable_ops",
        ),
    ],
    ids=["nan", "resized", "shifted"],
)
def test_the_culprit_is_named(model: nn.Module, x: Tensor, culprit: str) -> None:
    found = foldproof.audit(model, (x,), compiler="inductor", locate=False)
    assert found.kind is Kind.REFUTED
    assert found.conclusion.startswith(f"wrong: {culprit} changes"), found.conclusion
