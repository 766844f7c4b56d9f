"""Rounding explains the effect of constants, and no more; NaN on one side is no rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.testing import assert_equivalent

from .programs import Module, normal

HALF = [torch.bfloat16, torch.float16]


def attention(scale: float | None) -> Any:
    return lambda x: x + F.scaled_dot_product_attention(x, x, x, scale=scale)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("factor", [1.003, 1.03, 1.1])
def test_a_factor_is_no_rounding(dtype: torch.dtype, factor: float) -> None:
    x, w = normal(4, 32).to(dtype), normal(16, 32).to(dtype)
    found = foldproof.prove(lambda x: F.linear(x, w), lambda x: F.linear(x, w) * factor, (x,))
    assert found.kind is not Kind.ROUNDING and found.kind is not Kind.PROVED, str(found)


def test_a_coarse_buffer_that_nobody_reads() -> None:
    linear = nn.Linear(32, 32)
    coarse = torch.ones(1, dtype=torch.bfloat16)
    before = Module(lambda s, x: s.linear(x) + s.b, linear=linear, b=coarse)
    after = Module(lambda s, x: s.linear(x) * 1.03 + s.b, linear=linear, b=coarse)
    assert foldproof.prove(before, after, (normal(4, 32),)).kind is Kind.REFUTED


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype: torch.dtype) -> None:
    x = normal(1, 4, 16, 16).to(dtype)
    assert foldproof.prove(attention(None), attention(1 / 3.75), (x,)).kind is Kind.REFUTED
    y = normal(8, 16).to(dtype)
    biased = lambda x: x / x.std(-1, keepdim=True, correction=0)  # noqa: E731
    assert foldproof.prove(lambda x: x / x.std(-1, keepdim=True), biased, (y,)).kind is Kind.REFUTED


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_rounded_constants_are_rounding(dtype: torch.dtype) -> None:
    x = normal(8, 16).to(dtype)
    assert foldproof.prove(lambda x: x / 1.7, lambda x: x * (1 / 1.7), (x,)).kind is Kind.ROUNDING
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    norm.running_var.copy_(torch.rand(4) + 0.5)  # type: ignore[union-attr]
    model = nn.Sequential(conv, norm).eval().to(dtype)
    folded = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    found = foldproof.prove(model, nn.Sequential(folded), (normal(2, 3, 6, 6).to(dtype),))
    assert found.kind is Kind.ROUNDING, str(found)


def test_a_softmax_that_overflows_is_no_rounding() -> None:
    def naive(x: Tensor) -> Tensor:
        return torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)

    found = foldproof.prove(lambda x: F.softmax(x, -1), naive, (normal(4, 64, scale=60.0),))
    assert found.kind in (Kind.UNDECIDED, Kind.REFUTED), str(found)


def test_equality_at_these_parameters_only_fails_in_tests() -> None:
    """Dropping a bias of zeros and rounding a constant are fine; dropping a fresh BatchNorm shows by its epsilon."""
    linear = nn.Linear(4, 4)
    nn.init.zeros_(linear.bias)
    x = (normal(3, 4),)

    def without_bias(x: Tensor) -> Tensor:
        return F.linear(x, linear.weight) * (1 + 1e-9)

    with pytest.raises(AssertionError, match="other parameters"):
        assert_equivalent(linear, without_bias, x)
    found = assert_equivalent(linear, without_bias, x, at_these_parameters=True)
    assert found.kind is Kind.ROUNDING and not found.ok
    assert foldproof.prove(nn.Sequential(linear, nn.BatchNorm1d(4)).eval(), linear, x).kind is Kind.REFUTED


def test_a_verdict_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError, match=r"verdict.ok"):
        assert foldproof.prove(F.relu, F.relu, (normal(3),))


def test_a_pass_that_never_matches() -> None:
    linear = nn.Linear(4, 4)
    found = foldproof.prove_pass(lambda m: m, linear, (normal(3, 4),))
    assert found.kind is Kind.PROVED and "the pass changed nothing" in found.reason
    assert foldproof.prove_pass(lambda m: m, linear, (normal(3, 4),), must_change=True).kind is Kind.UNDECIDED
