"""A product with a number times a weight is that number times the product, whatever comes after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldproof
from foldproof import Kind


class Layer(nn.Module):
    """A layer, whose weight and bias are multiplied by a number, and a function of its result."""

    def __init__(self, layer: nn.Module, number: float, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.number, self.after = layer, number, after

    def forward(self, x: Tensor) -> Any:
        layer: Any = self.layer
        weight, bias = layer.weight * self.number, layer.bias * self.number
        if isinstance(layer, nn.Linear):
            return self.after(F.linear(x, weight, bias))
        return self.after(F.conv2d(x, weight, bias, padding=1))


LAYERS = {"linear": (partial(nn.Linear, 4, 5), (3, 4)), "convolution": (partial(nn.Conv2d, 4, 5, 3), (2, 4, 5, 6))}
EQUAL: dict[str, tuple[float, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "limits": (3, lambda y: y.clamp(-3, 6), lambda y: y.clamp(-1, 2) * 3),
    "relu": (0.5, F.relu, lambda y: F.relu(y) * 0.5),
    "a negative number": (-2, F.relu, lambda y: y.clamp(max=0) * -2),
    "an absolute value": (-2, torch.abs, lambda y: y.abs() * 2),
    "a comparison": (4, lambda y: (y > 2) * 1.0, lambda y: (y > 0.5) * 1.0),
}
OTHERS: dict[str, tuple[float, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "the old limits": (3, lambda y: y.clamp(-3, 6), lambda y: y.clamp(-3, 6) * 3),
    "a negative number": (-2, F.relu, lambda y: F.relu(y) * -2),
    "limits that are not exchanged": (-2, lambda y: y.clamp(-2, 1), lambda y: y.clamp(-1, 0.5) * -2),
    "another number": (3, F.relu, lambda y: F.relu(y) * 2),
}


def prove(name: str, number: float, first: Callable[..., Any], second: Callable[..., Any]) -> foldproof.Verdict:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    return foldproof.prove(Layer(layer, number, first), Layer(layer, 1, second), (4 * torch.randn(shape),))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", EQUAL)
def test_is_proved_for_all_parameters(name: str, layer: str) -> None:
    verdict = prove(layer, *EQUAL[name])
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and verdict.claim.all_parameters and verdict.claim.all_inputs


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_refuted(name: str, layer: str) -> None:
    assert prove(layer, *OTHERS[name]).kind is Kind.REFUTED


def test_padding_is_no_number() -> None:
    """Padding puts zeros beside a number, so that the whole is none."""
    torch.manual_seed(0)
    model = Layer(nn.Linear(4, 4), 1, lambda y: y * F.pad(torch.full((2,), 3.0), (1, 1)))
    other = Layer(model.layer, 1, lambda y: y * 3)
    assert foldproof.prove(model, other, (torch.randn(3, 4),)).kind is Kind.REFUTED
