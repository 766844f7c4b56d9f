"""Channels that are one number for all inputs, at these parameters: maxima and minima choose among them by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldproof
from foldproof import Kind


class Pruned(nn.Module):
    """A linear whose rows 1 and 2 are 0, and a function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.function = nn.Linear(4, 5), function
        with torch.no_grad():
            self.layer.weight[1:3] = 0
            self.layer.bias[1], self.layer.bias[2] = -2, 7

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


def filled(function: Callable[[Tensor], Tensor], numbers: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """The same function, with these numbers in the channels of rows 1 and 2."""

    def fill(y: Tensor) -> Tensor:
        z = function(y)
        middle = [torch.full_like(z[:, :1], number) for number in numbers]
        return torch.cat([z[:, :1], *middle, z[:, 3:]], 1)

    return fill


def prove(function: Callable[[Tensor], Tensor], numbers: tuple[float, float], **options: Any) -> foldproof.Verdict:
    inputs = (torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),)
    return foldproof.prove(Pruned(function), Pruned(filled(function, numbers)), inputs, **options)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
    "relu": (F.relu, (0, 7)),
    "relu6": (F.relu6, (0, 6)),
    "clamp": (lambda y: y.clamp(-1.5, 2.25), (-1.5, 2.25)),
    "a limit that float32 rounds": (lambda y: y.clamp(min=-2.1, max=8), (-2, 7)),
    "hardtanh of hardtanh": (lambda y: F.hardtanh(F.hardtanh(y, -1, 6), -3, 5), (-1, 5)),
    "hardsigmoid": (F.hardsigmoid, (1 / 6, 1)),
    "two values": (lambda y: torch.maximum(y, y * 2), (-2, 14)),
}


@pytest.mark.parametrize("name", [name for name in CASES if name != "hardsigmoid"])
def test_what_is_a_number_is_compared_as_one(name: str) -> None:
    verdict = prove(*CASES[name], by_value=True)
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and not verdict.claim.all_parameters and verdict.claim.all_inputs
    assert not verdict.claim.choices


@pytest.mark.parametrize("name", CASES)
def test_another_number_is_refuted(name: str) -> None:
    function, numbers = CASES[name]
    assert prove(function, (numbers[0], numbers[1] + 0.25), by_value=True).kind is Kind.REFUTED


def test_what_is_a_number_at_the_given_inputs_is_none() -> None:
    """Row 0 is not 0: what the channel is at one input is nothing that it is at others."""
    model, inputs = Pruned(F.relu), (torch.ones(1, 4),)
    number = float(model(*inputs).detach()[0, 0])
    other = Pruned(lambda y: torch.cat([torch.full_like(y[:, :1], number), F.relu(y)[:, 1:]], 1))
    verdict = foldproof.prove(model, other, inputs, by_value=True)
    assert verdict.kind is Kind.REFUTED
