"""Activations that follow their values prove nothing where other values are known to tell two programs apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldproof import Kind, fuse, prove
from zoo.table import ZOO


class Embedded(nn.Module):
    def __init__(self, rectified: bool, rows: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.tensor([1.0, 2.0, -1.0])[:rows, None].expand(rows, 4).clone())
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.table(x)
        return F.leaky_relu(out, 0.3) if self.rectified else out


def test_other_parameters_tell_programs_on_tokens_apart() -> None:
    found = prove(Embedded(True), Embedded(False), (torch.tensor([0, 1]),), by_value=True)
    assert found.kind is not Kind.PROVED
    assert found.claim is not None and found.claim.differs_elsewhere


def test_another_token_tells_programs_apart() -> None:
    found = prove(Embedded(True, 3), Embedded(False, 3), (torch.tensor([0, 1]),), by_value=True)
    assert found.kind is Kind.REFUTED and "other integers" in found.reason, str(found)


def test_a_threshold_that_most_inputs_do_not_reach() -> None:
    x = torch.rand(16)
    found = prove(lambda x: F.leaky_relu(x + 3, 0.1), lambda x: x + 3, (x,), by_value=True)
    assert found.kind is not Kind.PROVED
    assert prove(F.relu, lambda x: torch.where(x > 0, x, 0), (torch.randn(16),), by_value=True).kind is Kind.PROVED


@pytest.mark.exhaustive
def test_scales_that_are_right_for_their_own_signs() -> None:
    sample = ZOO["hgnet_v2"].build()
    found = fuse(sample.model, sample.inputs).verdict
    assert found.kind is Kind.PROVED and found.claim is not None and not found.claim.all_parameters
    assert "at other parameters the programs differ" in found.notes
