"""Programs that must not be called REFUTED: they are the same, or differ by rounding only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from foldproof import Kind, prove, prove_pass

from .models import AddsAndSubtracts, Holder, Low, Module

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

Function = Callable[[Tensor], Any]


def normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)


def normed_with_a_number(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1.1920929e-07)


# name: before, after, input, the verdicts that are right
SAME: dict[str, tuple[Function, Function, Tensor, set[Kind]]] = {
    "a write that changes nothing": (lambda x: (x.mul_(1.0), x + 1)[1], lambda x: x + 1, X, {Kind.PROVED}),
    "keys in another order": (lambda x: {"a": x, "b": x + x}, lambda x: {"b": x * 2, "a": x * 1}, X, {Kind.PROVED}),
    "a list for a tuple": (lambda x: [x, x + x], lambda x: (x, x * 2), X, {Kind.PROVED}),
    "an object": (Holder, Holder, X, {Kind.UNDECIDED}),
    "a number read out": (
        lambda x: (x, x.mean().item()),
        lambda x: (x, (x.sum() * (1 / 12)).item()),
        X,
        {Kind.PROVED, Kind.ROUNDING},
    ),
    # exp overflows without the maximum subtracted: inf/inf and 1/inf are not other values of the softmax
    "overflow": (lambda x: x.exp() / x.exp().sum(-1, True), lambda x: x.softmax(-1), X * 1000, {Kind.UNDECIDED}),
    # float64 has no digits left either, so neither side is the float64 result
    "cancellation of cos": (lambda x: 1 - x.cos(), lambda x: 2 * (x / 2).sin() ** 2, X * 1e-7, {Kind.PROVED}),
    "cancellation of exp": (lambda x: x.exp() - 1, lambda x: x.expm1(), X * 1e-14, {Kind.PROVED}),
    # eps is that of float64 in a float64 run
    "finfo of the dtype": (normed, normed_with_a_number, X * 1e-4, {Kind.PROVED}),
    # a float64 has other bits
    "bits of float32": (
        lambda x: ((x.view(torch.int32) >> 23) & 255) - 127,
        lambda x: x.abs().log2().floor().to(torch.int32),
        X,
        {Kind.UNDECIDED},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_same_function(name: str) -> None:
    before, after, x, right = SAME[name]
    verdict = prove(before, after, (x,))
    assert verdict.kind in right, str(verdict)


def test_a_random_program_is_not_refuted_by_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    assert prove(model, model, (X,)).kind is Kind.PROVED
    assert prove(lambda x: x[torch.randperm(len(x))], lambda x: x[torch.randperm(len(x))], (X,)).kind is Kind.UNDECIDED


def test_keyword_arguments_in_any_order() -> None:
    model = AddsAndSubtracts()
    assert prove(fx.symbolic_trace(model), model, (X,), {"minus": X[0], "plus": X[1]}).kind is Kind.PROVED


def test_a_number_that_the_operator_rounds_anyway() -> None:
    """Bitwise equal in float32, since ``add`` rounds the Python number to the dtype of ``x``."""
    after = Module(lambda s, x: (x + s.c) - 1000000.0, c=torch.tensor(1000000.1))
    assert torch.equal((X + 1000000.1) - 1000000.0, after(X))
    assert prove(lambda x: (x + 1000000.1) - 1000000.0, after, (X,)).kind is Kind.PROVED


def test_jumps_at_a_tie() -> None:
    """w·(1/w) rounds to a little less than 1 or not, and floor(x·w/w) jumps at integers."""
    w = torch.tensor([1.0, 3.0, 7.0, 5.0])
    u, x = 1 / w, torch.arange(-50.0, 50)[:, None].expand(100, 4).contiguous()
    before = Module(lambda s, x: torch.floor(x * s.w * s.u), w=w, u=u)
    after = Module(lambda s, x: torch.floor(x * s.v), v=w * u)
    assert prove(before, after, (x,)).kind in (Kind.UNDECIDED, Kind.ROUNDING, Kind.PROVED_WITHIN)


def test_parameters_that_are_stored_in_bfloat16() -> None:
    """The coarser of the two programs decides how much rounding explains."""
    linear = nn.Linear(4, 4)
    assert prove(linear, Low(linear), (X,)).kind is Kind.ROUNDING
    by_pass = prove_pass(Low, nn.Linear(4, 4), (X,))
    assert by_pass.kind in (Kind.PROVED, Kind.ROUNDING), str(by_pass)


def test_statistics_that_are_written_to() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    assert prove(model, copy.deepcopy(model), (X,)).kind is Kind.PROVED


def test_a_counter_that_only_one_program_has() -> None:
    def counts(s: Any, x: Tensor) -> Tensor:
        s.calls.add_(1)
        return x * 2

    verdict = prove(Module(lambda s, x: x * 2), Module(counts, calls=torch.zeros(())), (X,))
    assert verdict.kind is Kind.UNDECIDED and "calls" in verdict.reason, str(verdict)


def test_in_inference_mode() -> None:
    model = nn.Linear(4, 4)
    with torch.inference_mode():
        assert prove(model, copy.deepcopy(model), (X,)).kind is Kind.PROVED


@pytest.mark.parametrize(
    "chosen",
    [lambda x, mask: x[mask], lambda x, mask: (x, int(mask.sum())), lambda x, mask: (x, mask.nonzero())],
)
def test_how_many_elements_are_chosen_may_hang_on_rounding(chosen: Callable[[Tensor, Tensor], Any]) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    found = prove(lambda x: chosen(x, x * 3 / 3 >= x), lambda x: chosen(x, x >= x), (x,))
    assert found.kind in (Kind.ROUNDING, Kind.UNDECIDED), str(found)
    assert prove(lambda x: chosen(x, x > 0), lambda x: chosen(x, x > 0.5), (x,)).kind is Kind.REFUTED


@pytest.mark.parametrize("kept", [nn.Buffer, lambda x: x])
def test_tensors_that_are_no_leaves_are_rounded_as_leaves_are(kept: Callable[[Tensor], Tensor]) -> None:
    frequencies = 10000.0 ** -(torch.arange(32, dtype=torch.float64) / 32)
    places = torch.arange(131064, 131072)
    computed = Module(lambda s, x: x * torch.outer(places.float(), s.f).cos(), f=None)
    del computed.f
    computed.f = kept(frequencies.float())
    table = torch.outer(places.double(), frequencies).cos().float()
    found = prove(computed, Module(lambda s, x: x * table), (torch.randn(8, 32),))
    assert found.kind is Kind.ROUNDING, str(found)


def test_attributes_that_were_made_in_inference_mode() -> None:
    module = Module(lambda s, x: x * s.held[0], held=[])
    with torch.inference_mode():
        module.held.append(torch.ones(4))
    assert prove(module, module, (X,)).kind is Kind.PROVED
