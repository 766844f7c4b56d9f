"""Audits of training of small models with what real ones have: dropout, masks, norms, and statistics of batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.auditing import api

PROVED = (Kind.PROVED, Kind.PROVED_WITHIN)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "COMPARED_INPUTS", 2)


class Block(nn.Module):
    """A layer of a language model with a bias of the keys, whose gradient is 0 but for rounding."""

    def __init__(self, dropout: float, causal: bool) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Parameter(torch.randn(2, 6, 6) / 4)
        self.norm, self.dropout, self.causal = nn.LayerNorm(8), dropout, causal
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Any:
        x = F.dropout(self.norm(self.embed(tokens)), self.dropout, self.training)
        q, k, v = (f(x).view(2, 6, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = self.place
        if self.causal:
            mask = mask + torch.full((6, 6), -torch.inf).triu(1)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask[None], dropout_p=p)
        return self.head(F.dropout(y.transpose(1, 2).reshape(2, 6, 8), self.dropout, self.training))


class Convolutions(nn.Module):
    """A variance of 1,152 numbers: its correction is 1152/1151."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.003), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = F.hardtanh(self.norm(self.conv(x)), 0.0, 6.0).mean((2, 3))
        return self.head(F.dropout(x, 0.25, self.training))


class Positions(nn.Module):
    """Reads a number of positions, as models do that look for packed sequences."""

    def __init__(self, data: bool = False) -> None:
        super().__init__()
        self.data, self.weight = data, nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Any:
        positions = torch.arange(x.shape[-1])
        if bool((x if self.data else positions).sum() > 100):
            return x * 2 * self.weight
        return x * self.weight


TOKENS = (torch.randint(0, 11, (2, 6), generator=torch.Generator().manual_seed(0)),)
MODELS: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "attention with dropout": (lambda: Block(0.1, False), TOKENS),
    "masked attention with dropout": (lambda: Block(0.1, True), TOKENS),
    "batch norm, limits and dropout": (
        Convolutions,
        (torch.randn(2, 3, 26, 26, generator=torch.Generator().manual_seed(0)),),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_step_is_proved(name: str) -> None:
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    found = foldproof.audit(make().train(), inputs, training=True, locate=False)
    told = {step.title: step.verdict for step in found.steps if step.fired}
    assert {"AOTAutograd", "partition", "lowering, forward", "lowering, backward"} <= told.keys(), told.keys()
    assert all(verdict.kind in PROVED for verdict in told.values()), "\n".join(f"{n}: {v}" for n, v in told.items())


def test_positions_may_be_read() -> None:
    torch.manual_seed(0)
    found = foldproof.audit(Positions().train(), (torch.randn(3, 4),), training=True, locate=False)
    assert found.end_to_end is not None, found.uncompared
    assert found.end_to_end.verdict.kind is Kind.ROUNDING, found.end_to_end.verdict


def test_a_way_that_the_data_decide_is_not_compared() -> None:
    torch.manual_seed(0)
    found = foldproof.audit(Positions(data=True).train(), (torch.randn(3, 4),), training=True, locate=False)
    assert found.end_to_end is None
    assert "reads a number or a size from a tensor" in found.uncompared
