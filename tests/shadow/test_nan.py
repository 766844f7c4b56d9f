"""A nan among the constants may be selected or left out; nothing is proved that computes with it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.verdict import Kind

NAN = torch.tensor(math.nan)
EVEN = torch.arange(6) % 2 == 0
X = torch.tensor([0.5, -1.0, 2.0, 3.0, -0.25, 1.5])


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def verdict(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> foldproof.Verdict:
    return foldproof.prove(Of(one), Of(other), (X,))


def left_out(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), NAN, x * 2)


EQUAL: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "left out by a choice": (left_out, lambda x: torch.where(x.isnan(), math.nan, x + x)),
    "selected by a fixed mask": (
        lambda x: torch.where(EVEN, NAN, x * 2),
        lambda x: torch.where(~EVEN, x + x, math.nan),
    ),
    "moved": (
        lambda x: torch.where(EVEN, NAN, x).reshape(2, 3).t().flip(0),
        lambda x: torch.cat([torch.where(EVEN, math.nan, x)]).view(2, 3).t().flip(0),
    ),
    "selected and left out": (
        lambda x: torch.where(EVEN, x, torch.where(EVEN, NAN, x * 2)),
        lambda x: torch.where(EVEN, x, x + x),
    ),
    "compared": (
        lambda x: torch.where(torch.where(EVEN, NAN, x * 2) >= 1e6, 1.0, x),
        lambda x: torch.where(torch.where(EVEN, NAN, x + x) >= 1e6, 1.0, x),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_a_nan_that_is_only_selected(name: str) -> None:
    assert verdict(*EQUAL[name]).kind is Kind.PROVED


OTHER: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "subtracted from itself": (
        lambda x: torch.where(EVEN, NAN, x) - torch.where(EVEN, NAN, x) + 1,
        lambda x: torch.ones_like(x) * 1,
    ),
    "times zero": (lambda x: torch.where(EVEN, NAN, x) * 0, lambda x: x * 0),
    "in a function": (lambda x: torch.where(EVEN, NAN, x).exp() * 0 + x, lambda x: x + 0),
    "in a sum": (lambda x: torch.where(EVEN, NAN, x).sum() * 0 + x, lambda x: x + 0),
    "as a number": (lambda x: (x + math.nan) * 0 + x, lambda x: x + 0),
    "at another place": (lambda x: torch.where(EVEN, NAN, x), lambda x: torch.where(~EVEN, NAN, x)),
    "an infinity": (lambda x: torch.where(EVEN, NAN, x), lambda x: torch.where(EVEN, math.inf, x)),
    "compared": (
        lambda x: torch.where(torch.where(EVEN, NAN, x) == x, 0.0, x),
        lambda x: torch.where(x == x, 0.0, x),
    ),
    "compared as a number": (lambda x: torch.where(x != math.nan, x, 0.0), lambda x: torch.where(x > math.nan, x, 0.0)),
    "nothing": (lambda x: torch.where(EVEN, NAN, x), lambda x: x * 1),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_nan_that_matters_is_no_proof(name: str) -> None:
    assert verdict(*OTHER[name]).kind in (Kind.UNDECIDED, Kind.REFUTED)
