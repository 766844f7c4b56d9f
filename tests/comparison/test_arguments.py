"""Programs that are the same but for an argument or a parameter: that is said first."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldproof import Kind, compare
from zoo.formulas import Program


def of(function: Callable[[Tensor], Tensor]) -> Program:
    return Program(function, ())


def test_the_argument_that_differs_is_said_first() -> None:
    torch.manual_seed(0)
    found = compare(
        of(lambda x: F.layer_norm(x, (64,))), of(lambda x: F.layer_norm(x, (64,), eps=0.01)), (torch.randn(4, 64),)
    )
    assert found.kind is Kind.REFUTED and found.verdict.reason.startswith("layer_norm at ")
    assert "eps=1e-05 in the reference, eps=0.01 in the candidate" in found.verdict.reason


def test_of_an_argument_that_rounding_hides_it_is_not_said_that_neither_side_is_wrong() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) * 1e4
    found = compare(of(lambda x: F.layer_norm(x, (64,))), of(lambda x: F.layer_norm(x, (64,), eps=1.1e-5)), (x + 1e5,))
    if not found.identical:
        assert "neither side" not in found.verdict.reason and "eps=" in found.verdict.reason


def test_a_parameter_that_differs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[2].bias.add_(1)
    found = compare(model, other, (torch.randn(3, 4),), trials=2)
    assert found.kind is Kind.REFUTED and found.verdict.reason.startswith("2.bias has other values in the candidate")


@pytest.mark.parametrize("other", [lambda x: x.sum(-1) * 2, lambda x: (x * 2).sum(-1)])
def test_of_graphs_of_other_operators_nothing_is_said(other: Callable[[Tensor], Tensor]) -> None:
    found = compare(of(lambda x: x.sum(-1)), of(other), (torch.randn(3, 4),), trials=2, locate=False)
    assert found.kind is Kind.REFUTED and found.verdict.reason.startswith("no rounding")


def test_operands_in_another_order_are_no_argument() -> None:
    found = compare(
        of(lambda x: torch.exp(x) - torch.sin(x)),
        of(lambda x: -torch.exp(x) + torch.sin(x)),
        (torch.randn(3, 4),),
        trials=2,
        locate=False,
    )
    assert found.kind is Kind.REFUTED and " has " not in found.verdict.reason
