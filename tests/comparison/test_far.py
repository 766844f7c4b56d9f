"""Candidates that are many times as far from the float64 result, within a floor that allows for careless algorithms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldproof import Kind, compare

Function = Callable[[Tensor], Tensor]


class Of(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def careless(x: Tensor) -> Tensor:
    """A layer normalization with the variance E[x²] − μ²."""
    mean = x.mean(-1, keepdim=True)
    variance = (x * x).mean(-1, keepdim=True) - mean * mean
    return (x - mean) * torch.rsqrt(variance + 1e-5)


WRONG: dict[str, tuple[Function, Function, tuple[int, ...]]] = {
    "epsilon of a layer norm": (
        lambda x: F.layer_norm(x, (64,)),
        lambda x: F.layer_norm(x, (64,), eps=1e-2),
        (4, 64),
    ),
    "epsilon of a group norm": (lambda x: F.group_norm(x, 2), lambda x: F.group_norm(x, 2, eps=1e-3), (2, 8, 16)),
    "correction of a variance": (lambda x: x.var(-1), lambda x: x.var(-1, correction=0), (4, 64)),
    "a term less in a long sum": (lambda x: x.sum(-1), lambda x: x[:, :-1].sum(-1), (2, 100_000)),
    "a mean of other terms": (lambda x: x - x.mean(-1, True), lambda x: x - x[:, :-1].mean(-1, True), (4, 1000)),
    "a long mean times 1 + 3e-5": (lambda x: x.mean(-1), lambda x: x.mean(-1) * (1 + 3e-5), (2, 300_000)),
    "a running sum times 1 + 1e-5": (lambda x: x.cumsum(-1), lambda x: x.cumsum(-1) * (1 + 1e-5), (2, 10_000)),
    "a term less in a norm": (lambda x: x.norm(dim=-1), lambda x: x[:, :-1].norm(dim=-1), (2, 30_000)),
}


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("name", WRONG)
def test_neither_side_is_wrong_is_not_said_of_a_wrong_one(name: str, offset: float) -> None:
    reference, candidate, shape = WRONG[name]
    torch.manual_seed(0)
    x = torch.randn(shape) + offset
    found = compare(Of(reference), Of(candidate), (x,), trials=6, locate=False).verdict
    assert found.kind is Kind.REFUTED or (found.kind is Kind.UNDECIDED and "times as far" in found.reason)


def test_a_careless_algorithm_is_proved_to_be_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) + 1e3
    found = compare(Of(lambda x: F.layer_norm(x, (64,))), Of(careless), (x,), trials=6, locate=False).verdict
    assert found.kind is Kind.ROUNDING and "less carefully" in found.reason


def test_without_a_graph_it_is_told() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) + 1e3
    found = compare(
        Of(lambda x: F.layer_norm(x, (64,))), lambda x: careless(x).numpy(), (x,), trials=6, locate=False
    ).verdict
    assert found.kind is Kind.UNDECIDED and "times as far" in found.reason


def test_a_reference_that_is_exact_on_all_inputs_is_nearer() -> None:
    x = torch.arange(-4900.0, 4900.0, 49)
    found = compare(Of(lambda x: x / 49), lambda x: x / 49 + 1e-7 * x, (x,), trials=6, locate=False).truth_distance
    assert found is not None and found.reference == 0 and found.nearer == "reference"


def test_an_operator_beyond_its_own_rounding_decides() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 100_000)
    found = compare(Of(lambda x: (x * 0.5).sum(-1)), Of(lambda x: (x * 0.50001).sum(-1)), (x,), trials=4).verdict
    assert found.kind is Kind.REFUTED and "mul" in found.reason and found.counterexample is not None


def test_an_operator_that_the_outputs_hide_is_told() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) + 1e3
    reference, candidate = Of(lambda x: F.layer_norm(x * 1.5, (64,))), Of(lambda x: F.layer_norm(x * 1.50015, (64,)))
    found = compare(reference, candidate, (x,), trials=4)
    assert found.kind is Kind.ROUNDING
    assert any("mul" in note and "which the outputs hardly show" in note for note in found.verdict.notes)


def test_other_containers_do_not_refute_a_careless_algorithm() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) + 1e3
    reference = Of(lambda x: {"logits": F.layer_norm(x, (64,)), "boxes": x * 2})  # type: ignore[arg-type,return-value]
    candidate = Of(lambda x: (careless(x), x * 2))  # type: ignore[arg-type,return-value]
    assert compare(reference, candidate, (x,), trials=6, locate=False).kind is not Kind.REFUTED


def test_agreement_at_the_given_input_excuses_no_other() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) + 1e3
    known = float(x[0, 0])

    def candidate(x: Tensor) -> Tensor:
        return torch.where(x[:1, :1] == known, careless(x), F.layer_norm(x, (64,), eps=3e-2))

    found = compare(Of(lambda x: F.layer_norm(x, (64,))), Of(candidate), (x,), trials=6, locate=False).verdict
    assert found.kind is not Kind.ROUNDING
