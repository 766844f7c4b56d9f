"""Comparisons with -inf: the same for all inputs where no infinity but a constant's gets into a value, as in a safe
softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.verdict import Kind

torch.manual_seed(0)
X, M = torch.randn(4, 4), torch.randn(4, 4)
INF = math.inf
PERMUTATION = torch.eye(4)[[2, 0, 3, 1]]

CAUSAL = torch.full((4, 4), -INF).triu(1)

Function = Callable[["Given", Tensor, Tensor], Tensor]


def decomposed_norm(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def decomposed_softmax(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


class Given(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.eye(4) + 0.5)
        self.register_buffer("mask", torch.zeros(4, 4))

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        return self.function(self, x, m)


def verdict(value: Function, test: Callable[[Tensor], Tensor]) -> foldproof.Verdict:
    def tested(net: Given, x: Tensor, m: Tensor) -> Tensor:
        v = value(net, x, m)
        return torch.where(test(v), 7.0, v)

    return foldproof.prove(Given(tested), Given(value), (X, M))


def is_for_all_inputs(found: foldproof.Verdict) -> bool:
    assert found.claim is not None
    return found.kind is Kind.PROVED and found.claim.is_general


TESTS: dict[str, Callable[[Tensor], Tensor]] = {
    "eq": lambda v: v == -INF,
    "ne": lambda v: ~(v != -INF),
    "gt": lambda v: ~(v > -INF),
    "le": lambda v: v <= -INF,
    "of a row": lambda v: (v == -INF).all(-1, keepdim=True),
}

REAL: dict[str, Function] = {
    "a product with a parameter": lambda net, x, m: x @ net.weight,
    "scores": lambda net, x, m: (x @ m.t()) * 0.5,
    "a linear layer": lambda net, x, m: nn.functional.linear(x * m, net.weight),
    "a part of it": lambda net, x, m: (x @ net.weight)[1:, ::2].t().contiguous(),
    "a sum of two": lambda net, x, m: x @ net.weight + m @ net.weight,
    "scores and a parameter": lambda net, x, m: x @ m + net.weight,
    "scores behind a norm": lambda net, x, m: decomposed_norm(x) @ net.weight,
    "scores behind a norm of parameters": lambda net, x, m: x @ decomposed_norm(net.weight) + m @ net.weight,
    "scores behind a masked softmax": lambda net, x, m: decomposed_softmax(x @ m + CAUSAL) @ (m @ net.weight),
}


@pytest.mark.parametrize("test", TESTS)
def test_each_test(test: str) -> None:
    assert is_for_all_inputs(verdict(REAL["scores"], TESTS[test]))


@pytest.mark.parametrize("value", REAL)
def test_values_that_are_real_for_all_inputs(value: str) -> None:
    assert is_for_all_inputs(verdict(REAL[value], TESTS["eq"]))


MAYBE_INFINITE: dict[str, Function] = {
    "an input": lambda net, x, m: x,
    "a mask in a buffer": lambda net, x, m: x @ net.weight + net.mask,
    "a root of a parameter": lambda net, x, m: x @ net.weight.rsqrt() + m @ net.weight,
    "a softmax of scores that are masked throughout": lambda net, x, m: (
        decomposed_softmax(x @ m + torch.where(x > 9, 0.0, CAUSAL)) @ m
    ),
    "a root of a parameter, by its inverse": lambda net, x, m: x @ net.weight.sqrt() + m @ net.weight,
    "a scaled mask": lambda net, x, m: (x @ net.weight + CAUSAL) * net.weight[0, 0],
    "a moved input": lambda net, x, m: x.t() * 2 + 1,
    "scores and a mask": lambda net, x, m: x @ net.weight + m,
    "scores and a mask, at once": lambda net, x, m: torch.addmm(m, x, net.weight),
    "an input that a constant matrix moves": lambda net, x, m: x @ PERMUTATION,
    "a logarithm": lambda net, x, m: ((x @ net.weight).square()).log(),
    "a reciprocal": lambda net, x, m: 1 / (x @ net.weight),
    "a root": lambda net, x, m: ((x @ net.weight) + 20).sqrt(),
    "a product with a reciprocal": lambda net, x, m: (1 / x) @ net.weight,
    "masked by value": lambda net, x, m: (x @ net.weight).masked_fill(x > 5, -INF),
    "a function of parameters": lambda net, x, m: (x * net.weight.log()) @ m,
    "a reciprocal of parameters": lambda net, x, m: (x / net.weight.norm()) @ m,
    "a normalisation by parameters": lambda net, x, m: x @ (net.weight * net.weight.rsqrt()),
    "a product of half precision": lambda net, x, m: x.half() @ m.half(),
    "a multiple of infinity": lambda net, x, m: ((x @ net.weight).abs() * INF).clamp(max=1),
}


@pytest.mark.parametrize("value", MAYBE_INFINITE)
@pytest.mark.parametrize("test", ["eq", "gt"])
def test_values_that_may_be_infinite(value: str, test: str) -> None:
    found = verdict(MAYBE_INFINITE[value], TESTS[test])
    assert found.kind is not Kind.PROVED or not is_for_all_inputs(found), str(found)


OVERFLOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "isinf": torch.isinf,
    "isnan": torch.isnan,
    "eq": lambda v: v == INF,
}


@pytest.mark.parametrize("test", OVERFLOWS)
def test_a_guard_against_overflows_is_a_choice(test: str) -> None:
    found = verdict(REAL["scores"], OVERFLOWS[test])
    assert found.kind is not Kind.PROVED or not is_for_all_inputs(found), str(found)


def test_a_write_of_an_input() -> None:
    def written(net: Given, x: Tensor, m: Tensor) -> Tensor:
        v = x @ net.weight
        v[0] = m[0]
        return v

    found = verdict(written, TESTS["eq"])
    assert found.kind is not Kind.PROVED or not is_for_all_inputs(found), str(found)


def test_a_mask_is_where_it_is() -> None:
    """A comparison of masked scores is the mask, whatever the scores are."""
    masked = foldproof.prove(
        Given(lambda net, x, m: torch.where(x @ m + CAUSAL == -INF, 7.0, x)),
        Given(lambda net, x, m: torch.where(CAUSAL == -INF, 7.0, x)),
        (X, M),
    )
    assert is_for_all_inputs(masked), str(masked)


def test_attention_and_its_decomposition() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, v)

    args = tuple(torch.randn(1, 2, 3, 4) for _ in range(3))
    program = torch.export.export(Attention(), args)
    assert is_for_all_inputs(foldproof.prove(program, program.run_decompositions(), args))
