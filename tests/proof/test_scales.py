"""Numbers that only one program computes with tell at what scale of inputs the programs may differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from foldproof import Kind, prove

from .models import Module

Function = Callable[[Tensor], Tensor]

# Pairs that small inputs don't tell apart.
DIFFERENT: dict[str, tuple[Function, Function]] = {
    "relu, relu6": (F.relu, F.relu6),
    "another limit": (F.hardtanh, lambda x: x.clamp(-1, 2)),
    "a far limit": (F.relu, lambda x: x.clamp(0, 1e4)),
    "a piece of hardswish": (F.hardswish, lambda x: x * 0.5 + x * x / 6),
    "a choice none makes here": (lambda x: torch.where(x > 3, x * 2, x), lambda x: x),
    "a limit among smaller numbers": (
        F.relu,
        lambda x: x.clamp(0, 1000.0) + 0 * (x - 4.5) * (x - 3.5) * (x - 2.5) * (x - 1.5),
    ),
    "a limit that is a tensor": (F.relu, lambda x: torch.minimum(x.relu(), torch.tensor(6.0))),
    "gelu and its approximation": (F.gelu, lambda x: F.gelu(x, approximate="tanh")),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_small_inputs_do_not_hide_a_difference(name: str) -> None:
    first, second = DIFFERENT[name]
    x = 0.01 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = prove(first, second, (x,))
    assert found.kind is Kind.REFUTED, str(found)
    assert found.counterexample is not None
    (at,) = found.counterexample.inputs
    assert not torch.allclose(first(at), second(at), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("limit", [50.0, 50])
def test_a_limit_that_is_a_buffer(limit: float) -> None:
    capped = Module(lambda s, x: torch.clamp(x, max=s.limit), limit=torch.tensor(limit))
    assert (
        prove(capped, Module(lambda s, x: x * 1, limit=torch.tensor(limit)), (torch.randn(4, 5),)).kind is Kind.REFUTED
    )


def test_the_first_difference_is_told() -> None:
    first, second = fx.symbolic_trace(lambda x: F.relu(x + 1)), fx.symbolic_trace(lambda x: F.relu6(x + 1))
    found = prove(first, second, (0.01 * torch.randn(4, 5),))
    assert found.kind is Kind.REFUTED and found.difference is not None, str(found)
    assert found.difference.node == "relu"


def test_half_precision_reaches_its_own_size_only() -> None:
    found = prove(F.relu, lambda x: x.clamp(0, 10000.0), (torch.randn(4, 5).half(),))
    assert found.kind is Kind.REFUTED, str(found)


def test_a_scale_that_a_program_refuses_is_no_end() -> None:
    def large(x: Tensor) -> Tensor:
        torch._assert(bool((x.abs().max() > 0.01).item()), "small")
        return F.relu(x)

    assert prove(large, F.relu6, (0.05 * torch.randn(4, 5),)).kind is Kind.REFUTED


def test_an_epsilon_shows_where_inputs_are_small() -> None:
    found = prove(lambda x: F.layer_norm(3 * x, (5,)), lambda x: F.layer_norm(x, (5,)), (torch.randn(4, 5),))
    assert found.kind is Kind.REFUTED, str(found)


def test_a_rounded_number_is_the_number_that_kernels_use() -> None:
    """As compilers write a constant in the dtype of what it is used with."""
    found = prove(
        lambda x: x / (x * x + 1e-5).sqrt(),
        lambda x: x / (x * x + float(torch.tensor(1e-5))).sqrt(),
        (torch.randn(4, 5),),
    )
    assert found.kind is Kind.PROVED, str(found)


COMPUTED_LIMITS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "of a constant": (lambda s, x: torch.sin(torch.minimum(x, torch.tensor(4.0).exp())), lambda s, x: torch.sin(x)),
    "of a buffer": (lambda s, x: torch.minimum(2 * x, s.c.exp()), lambda s, x: 2 * x),
    "of a vector": (lambda s, x: torch.maximum(2 * x, -s.v.exp()), lambda s, x: 2 * x),
    "of a comparison": (lambda s, x: torch.where(x > s.c.exp(), x.tanh() - 1, x.tanh()), lambda s, x: x.tanh()),
    "of a clamp": (
        lambda s, x: torch.clamp(x * torch.tensor(3.0).log(), max=s.c.exp()),
        lambda s, x: x * math.log(3.0),
    ),
    "of buckets": (lambda s, x: x.tanh() + torch.bucketize(x, s.v.exp()).float(), lambda s, x: x.tanh()),
}


def with_limits(function: Callable[..., Tensor]) -> Module:
    return Module(function, c=torch.tensor(4.0), v=torch.tensor([4.0, 5.0, 6.0, 7.0]))


@pytest.mark.parametrize("name", COMPUTED_LIMITS)
def test_inputs_reach_a_computed_limit(name: str) -> None:
    first, second = COMPUTED_LIMITS[name]
    verdict = prove(with_limits(first), with_limits(second), (torch.randn(4, 4),))
    assert verdict.kind is Kind.REFUTED, verdict
