"""Rounding explains the effect of constants, and no more; NaN on one side is no rounding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.proof import prove as prove_programs
from foldproof.testing import assert_equivalent

from .programs import Module, normal

HALF = [torch.bfloat16, torch.float16]
X = normal(6, 8)


def attention(scale: float | None) -> Any:
    return lambda x: x + F.scaled_dot_product_attention(x, x, x, scale=scale)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("factor", [1.003, 1.03, 1.1])
def test_a_factor_is_no_rounding(dtype: torch.dtype, factor: float) -> None:
    x, w = normal(4, 32).to(dtype), normal(16, 32).to(dtype)
    found = foldproof.prove(lambda x: F.linear(x, w), lambda x: F.linear(x, w) * factor, (x,))
    assert found.kind is not Kind.ROUNDING and found.kind is not Kind.PROVED, str(found)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("factor", [1.003, 1.03])
def test_constants_that_nothing_folds_explain_nothing(dtype: torch.dtype, factor: float) -> None:
    """Both programs compute them, from the same parameters; only a number or a tensor of its own can be rounded."""
    held = {"w": normal(16, 32).to(dtype), "s": (normal(32) + 3).to(dtype)}
    x = normal(4, 32).to(dtype)
    before = Module(lambda s, x: F.linear(x, s.w * s.s), **held)
    after = Module(lambda s, x: F.linear(x, s.w * (factor * s.s)) * 0.5 * 2, **held)
    counted = Module(lambda s, x: F.linear(x, s.w) / s.s[:16].add(factor), **held)
    for one, other in ((before, after), (Module(lambda s, x: F.linear(x, s.w) / (s.s[:16] + 1), **held), counted)):
        assert foldproof.prove(one, other, (x,)).kind in (Kind.REFUTED, Kind.UNDECIDED)
    folded = Module(lambda s, x: F.linear(x, s.w), w=held["w"] * held["s"])
    found = foldproof.prove(before, folded, (x,))
    assert found.kind is Kind.PROVED and found.claim is not None and found.claim.derived == ("w",)
    if factor > 1 + 2 * torch.finfo(dtype).eps:
        changed = Module(lambda s, x: F.linear(x, s.w), w=held["w"] * held["s"] * factor)
        assert foldproof.prove(before, changed, (x,)).kind not in (Kind.PROVED, Kind.PROVED_WITHIN)
    number = float((held["s"][1] * held["w"][2, 3]).item())
    taken = Module(lambda s, x: x * (s.s[1] * s.w[2, 3]), **held)
    assert foldproof.prove(taken, lambda x: x * number, (x,)).kind is Kind.ROUNDING


DOUBLE = normal(4, 8).double()
CLOSE: dict[str, tuple[Any, Any]] = {
    "pi": (lambda x: x * math.pi, lambda x: x * 3.141593),
    "a tenth": (lambda x: x * 0.1, lambda x: x * 0.10000000149),
    "a logarithm": (lambda x: (x * math.log(2)).exp(), lambda x: (x * 0.69314718).exp()),
    "an exponent": (lambda x: x.abs() ** 0.1, lambda x: x.abs() ** 0.10000000149),
    "a limit": (lambda x: x.clamp(min=0.1), lambda x: x.clamp(min=0.10000000149)),
}
ROUNDED_DOUBLES: dict[str, tuple[Any, Any]] = {
    "a third": (lambda x: x / 3, lambda x: x * (1 / 3)),
    "a sum": (lambda x: x * 0.1 + x * 0.2, lambda x: x * 0.3),
    "a power of two": (lambda x: 2**x, lambda x: (x * math.log(2)).exp()),
    "a product of many": (lambda x: x * 0.1 * 0.7 * 1.1 * 1.3, lambda x: x * (1.3 * 0.1 * 1.1 * 0.7)),
}


@pytest.mark.parametrize("name", CLOSE)
def test_doubles_round_to_doubles(name: str) -> None:
    """Constants that float32 does not tell apart: a difference in float64, and none in float32."""
    assert foldproof.prove(*CLOSE[name], (DOUBLE,)).kind is Kind.REFUTED
    assert foldproof.prove(*CLOSE[name], (DOUBLE.float(),)).kind is not Kind.REFUTED


@pytest.mark.parametrize("name", ROUNDED_DOUBLES)
def test_constants_of_doubles_are_rounded(name: str) -> None:
    kind = foldproof.prove(*ROUNDED_DOUBLES[name], (DOUBLE,)).kind
    assert kind in (Kind.PROVED, Kind.PROVED_WITHIN, Kind.ROUNDING)


def test_whole_numbers_are_not_moved() -> None:
    """A remainder of integers is exact, out of place and in place; of other numbers it jumps, in both."""
    table, place = normal(4, 8), torch.tensor(6)
    looked_up = Module(lambda s, x: x + s.t[s.i % 4], t=table, i=place)
    scaled = Module(lambda s, x: x + 1.001 * s.t[s.i.clone().remainder_(4)], t=table, i=place)
    assert foldproof.prove(looked_up, scaled, (X,)).kind is Kind.REFUTED
    for wrap in (lambda x: x % 2, lambda x: x.clone().remainder_(2)):
        assert foldproof.prove(wrap, lambda x, w=wrap: 1.001 * w(x), (X,)).kind is Kind.REFUTED
        assert foldproof.prove(lambda x: x % 2, wrap, (X,)).kind is Kind.PROVED


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
def test_rounded_constants_are_named_or_rounding(dtype: torch.dtype) -> None:
    x = normal(8, 16).to(dtype)
    assert foldproof.prove(lambda x: x / 1.7, lambda x: x * (1 / 1.7), (x,)).kind is Kind.PROVED_WITHIN
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    norm.running_var.copy_(torch.rand(4) + 0.5)  # type: ignore[union-attr]
    model = nn.Sequential(conv, norm).eval().to(dtype)
    folded = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    images = (normal(2, 3, 6, 6).to(dtype),)
    found = prove_programs(model, nn.Sequential(folded), images)  # as constants
    assert found.kind is Kind.ROUNDING, str(found)
    assert foldproof.prove(model, nn.Sequential(folded), images).kind is Kind.PROVED


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
        return F.linear(x, linear.weight) * (1 + 1.2e-7)

    with pytest.raises(AssertionError, match="other parameters"):
        assert_equivalent(linear, without_bias, x)
    found = assert_equivalent(linear, without_bias, x, at_these_parameters=True)
    assert found.kind is Kind.PROVED_WITHIN and not found.ok
    assert foldproof.prove(nn.Sequential(linear, nn.BatchNorm1d(4)).eval(), linear, x).kind is Kind.REFUTED


def test_a_verdict_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError, match=r"verdict.ok"):
        assert foldproof.prove(F.relu, F.relu, (normal(3),))


def test_a_pass_that_never_matches() -> None:
    linear = nn.Linear(4, 4)
    found = foldproof.prove_pass(lambda m: m, linear, (normal(3, 4),))
    assert found.kind is Kind.PROVED and "the pass changed nothing" in found.reason
    assert foldproof.prove_pass(lambda m: m, linear, (normal(3, 4),), must_change=True).kind is Kind.UNDECIDED


def test_float64_cancels_too() -> None:
    """Large numbers that cancel are neither a counterexample nor a contradiction of a proof."""
    large = 1e20 * torch.randn(4)
    given = (large, -large, torch.ones(4))
    verdict = foldproof.prove(lambda a, b, c: (a + b) + c, lambda a, b, c: a + (b + c), given)
    assert verdict.kind is Kind.PROVED, str(verdict)
    verdict = foldproof.prove(lambda a, b, c: (a + b) + c, lambda a, b, c: a + (b + c * 2), given)
    assert verdict.kind is Kind.UNDECIDED, str(verdict)  # another function, which no float shows at this scale


def test_equal_functions_that_float64_tells_apart_are_not_refuted() -> None:
    large = 1e20 * torch.randn(4)

    def one(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return torch.special.i0((a + b) + c)

    def other(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return torch.special.i0e(a + (b + c)) * torch.exp((a + b + c).abs())

    assert foldproof.prove(one, other, (large, -large, torch.ones(4))).kind is Kind.UNDECIDED


def test_rounding_that_hides_the_outputs() -> None:
    """Two functions that nothing but rounding remains of are not called equal."""
    before, after = (lambda x, f=f: (x + 1e18) - 1e18 + f * x for f in (1, 1.5))
    assert foldproof.prove(before, after, (X,)).kind is Kind.UNDECIDED


def test_outputs_that_are_zero_are_not_measured() -> None:
    """The gradient of a bias before a normalization is rounding alone: it says nothing of the other outputs."""

    def with_sum(scale: Any, tiny: float = 0.0, large: float = 0.0) -> Any:
        def program(x: Tensor) -> Any:
            alone = (x + 1e18) - 1e18 + large * x
            return (x - x.sum() / 8).sum() + tiny * x[0], alone - x, scale(x)

        return program

    x = normal(8)
    before = with_sum(lambda x: x * (1 / 3))
    assert foldproof.prove(before, with_sum(lambda x: x / 3), (x,)).kind is Kind.PROVED_WITHIN
    assert foldproof.prove(before, with_sum(lambda x: x / 4), (x,)).kind is Kind.REFUTED
    hidden = foldproof.prove(before, with_sum(lambda x: x / 3, large=0.5), (x,))
    assert hidden.kind is Kind.UNDECIDED, "an output that rounding hides is not zero"
    assert foldproof.prove(before, with_sum(lambda x: x / 3, tiny=1e-3), (x,)).kind is Kind.REFUTED


def told(before: Any, after: Any, *inputs: Tensor) -> tuple[Kind, list[str]]:
    verdict = foldproof.prove(before, after, inputs)
    return verdict.kind, [note for note in verdict.notes if "a cast to it is read as the identity" in note]


CASTS: dict[str, tuple[Any, str, str]] = {
    "half": (lambda x: x.half().float() * 2, "torch.float16", "11 bits"),
    "bfloat16": (lambda x: x.to(torch.bfloat16).to(x.dtype) * 2, "torch.bfloat16", "8 bits"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn).float() * 2, "torch.float8_e4m3fn", "4 bits"),
    "promotion": (lambda x: x.half() * torch.ones(4) + x, "torch.float16", "11 bits"),
    "a written buffer": (lambda x: torch.zeros(3, 4).half().copy_(x).float() * 2, "torch.float16", "11 bits"),
    "half all the way": (lambda x: (x.half() * 2).float(), "torch.float16", "11 bits"),
    "the output": (lambda x: (x * 2).half(), "torch.float16", "11 bits"),
}


@pytest.mark.parametrize("name", CASTS)
def test_a_cast_of_one_program_is_told(name: str) -> None:
    casting, dtype, bits = CASTS[name]
    for pair, which in (((casting, lambda x: x + x), "first"), ((lambda x: x + x, casting), "second")):
        kind, [note] = told(*pair, normal(3, 4))
        assert kind is Kind.PROVED
        assert f"only the {which} program has values in {dtype}" in note and bits in note


def test_casts_that_need_no_words() -> None:
    half = CASTS["half"][0]
    assert told(half, lambda x: x.half().float() + x.half().float(), normal(3, 4)) == (Kind.PROVED, [])
    low = normal(3, 4).half()
    by_parts = lambda x: (x.float() * 2).half()  # noqa: E731
    assert told(by_parts, lambda x: x * 2, low) == (Kind.PROVED, []), "a finer dtype loses nothing"
    kind, [note] = told(lambda x: x * 2, lambda x: (x * 2).to(torch.bfloat16).half(), low)
    assert kind is Kind.PROVED and "torch.bfloat16" in note


def test_a_single_cast_of_doubles_is_told() -> None:
    kind, [note] = told(lambda x: x.float().double(), lambda x: x * 1, normal(3, 4).double())
    assert kind is Kind.PROVED and "torch.float32" in note and "24 bits" in note


def test_a_pass_that_casts_parameters_is_told() -> None:
    @torch.no_grad()
    def to_half_and_back(model: nn.Module) -> None:
        for p in model.parameters():
            p.copy_(p.half().float())

    verdict = foldproof.prove_pass(to_half_and_back, nn.Linear(4, 4), (normal(3, 4),))
    assert "only the second program has values in torch.float16" in str(verdict), str(verdict)
    exact = nn.Linear(4, 4)
    with torch.no_grad():
        exact.weight.copy_(torch.arange(16.0).reshape(4, 4) / 4), exact.bias.fill_(0.5)
    verdict = foldproof.prove_pass(to_half_and_back, exact, (normal(3, 4),))
    assert any("only the second program has values in torch.float16" in note for note in verdict.notes), str(verdict)
