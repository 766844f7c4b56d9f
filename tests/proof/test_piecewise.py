"""Choices by comparison are functions: equal ones are proved, and those that differ at the limit alone are not."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof import prove
from foldproof.verdict import Kind

Function = Callable[[Tensor, Tensor], Tensor]

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
Y = torch.rand(8, 5, generator=torch.Generator().manual_seed(2)) + 0.5


def in_place(x: Tensor, y: Tensor) -> Tensor:
    out = x.clone()
    out.masked_fill_(out < 0, 0)
    return out


def mask_written(x: Tensor, y: Tensor) -> Tensor:
    mask = x > 0
    mask.logical_and_(x < 1)
    return x * mask


def power_of(n: Tensor, y: Tensor) -> Tensor:
    """Return n⁷·exp(y), in more steps than `Origin` keeps."""
    out = n
    for _ in range(6):
        out = out * n
    return out * y.exp()


def positive_on_one_side(x: Tensor, y: Tensor) -> Tensor:
    """Return n⁷·exp(y) for n = 4 - x, which a comparison shows to be positive for x < 3 alone."""
    n = 4 - x
    return torch.where(x < 2, power_of(torch.where(x < 3, n, 1.0), y), power_of(n, y))


def long_chain(x: Tensor, y: Tensor) -> Tensor:
    """Return a function of x that is made of itself twice, 20 times over."""
    out = x
    for _ in range(20):
        a = out
        for _ in range(5):
            a = torch.erf(a)
        out = a * out + 0.5
    return out


def top(x: Tensor) -> Tensor:
    return x.amax(0)


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0)


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x))


def deep(x: Tensor, depth: int) -> Tensor:
    """Return a number less a product that is made in ``depth`` steps."""
    for _ in range(depth):
        x = x * torch.erf(x)
    return 1 - x


EQUAL: dict[str, tuple[Function, Function]] = {
    "relu by where": (lambda x, y: torch.where(x > 0, x, 0), lambda x, y: F.relu(x)),
    "relu by where, at the other side": (lambda x, y: torch.where(x >= 0, x, 0), lambda x, y: F.relu(x)),
    "relu by a mask": (lambda x, y: x * (x > 0), lambda x, y: F.relu(x)),
    "relu by a float mask": (lambda x, y: (x > 0).float() * x, lambda x, y: F.relu(x)),
    "relu by masked_fill": (lambda x, y: x.masked_fill(x < 0, 0), lambda x, y: F.relu(x)),
    "relu in place": (in_place, lambda x, y: F.relu(x)),
    "relu6 by where": (lambda x, y: torch.where(x < 0, 0, torch.where(x > 6, 6, x)), lambda x, y: F.relu6(x)),
    "clamp by where": (lambda x, y: torch.where(x > 1, 1, torch.where(x < -1, -1, x)), lambda x, y: x.clamp(-1, 1)),
    "abs by where": (lambda x, y: torch.where(x < 0, -x, x), lambda x, y: x.abs()),
    "abs by sign": (lambda x, y: x * x.sign(), lambda x, y: x.abs()),
    "sign by comparisons": (lambda x, y: (x > 0).float() - (x < 0).float(), lambda x, y: x.sign()),
    "leaky_relu by where": (lambda x, y: torch.where(x > 0, x, 0.125 * x), lambda x, y: F.leaky_relu(x, 0.125)),
    "leaky_relu by max": (lambda x, y: torch.maximum(x, 0.125 * x), lambda x, y: F.leaky_relu(x, 0.125)),
    "prelu by where": (lambda x, y: torch.where(x >= 0, x, x * 0.25), lambda x, y: F.prelu(x, torch.tensor([0.25]))),
    "elu by where": (lambda x, y: torch.where(x > 0, x, torch.expm1(x)), lambda x, y: F.elu(x)),
    "elu by exp": (lambda x, y: torch.where(x <= 0, 1.5 * (x.exp() - 1), x), lambda x, y: F.elu(x, 1.5)),
    "hardshrink by where": (lambda x, y: torch.where(x.abs() > 0.5, x, 0), lambda x, y: F.hardshrink(x)),
    "softshrink by sign": (lambda x, y: x.sign() * F.relu(x.abs() - 0.5), lambda x, y: F.softshrink(x)),
    "threshold by where": (lambda x, y: torch.where(x > 0.5, x, 2), lambda x, y: F.threshold(x, 0.5, 2)),
    "hardswish by where": (
        lambda x, y: torch.where(x > 3, x, torch.where(x < -3, 0, x * (x + 3) / 6)),
        lambda x, y: F.hardswish(x),
    ),
    "hardsigmoid by clamp": (lambda x, y: (x / 2 + 1.5).clamp(0, 3) / 3, lambda x, y: F.hardsigmoid(x)),
    "max by where": (lambda x, y: torch.where(x > y, x, y), lambda x, y: torch.maximum(x, y)),
    "min by a mask": (lambda x, y: x * (x < y) + y * (x >= y), lambda x, y: torch.minimum(x, y)),
    "max less half of min": (
        lambda x, y: torch.where(x > y, x - 0.5 * y, y - 0.5 * x),
        lambda x, y: torch.maximum(x, y) - 0.5 * torch.minimum(x, y),
    ),
    "smooth_l1": (
        lambda x, y: torch.where((x - y).abs() < 1, (x - y) ** 2 / 2, (x - y).abs() - 0.5),
        lambda x, y: F.smooth_l1_loss(y, x, reduction="none"),
    ),
    "branches changed over": (lambda x, y: torch.where(x > 0, x * y, y), lambda x, y: torch.where(~(x > 0), y, x * y)),
    "two conditions": (
        lambda x, y: torch.where((x > 0) & (x < 1), y, 0),
        lambda x, y: torch.where(x > 0, torch.where(x < 1, y, 0), 0),
    ),
    "one of two conditions": (
        lambda x, y: torch.where((x < 0) | (y > 1), y, 0),
        lambda x, y: torch.where(~((x >= 0) & (y <= 1)), y, 0),
    ),
    "a mask that is written": (mask_written, lambda x, y: torch.where((x > 0) & (x < 1), x, 0)),
    "a limit in bfloat16": (
        lambda x, y: torch.where(x.bfloat16() > 0.1, y, 0) + F.relu(y),
        lambda x, y: torch.where(x.bfloat16() <= 0.10009765625, 0, y) + relu(y),
    ),
    "the sign of a positive value": (lambda x, y: y * torch.sign(x.exp() + 1), lambda x, y: y),
    "of normalised values": (
        lambda x, y: relu(F.layer_norm(x, (5,))),
        lambda x, y: F.relu(F.layer_norm(x, (5,))),
    ),
    "elu of normalised values": (
        lambda x, y: elu(F.batch_norm(x, None, None, y[0], y[1], training=True)),
        lambda x, y: F.elu(F.batch_norm(x, None, None, y[0], y[1], training=True)),
    ),
    "elu of values over a norm": (
        lambda x, y: elu(3 * x / ((x * x).mean() + 1) - 1),
        lambda x, y: F.elu(3 * x / ((x * x).mean() + 1) - 1),
    ),
    "of values over their norm": (lambda x, y: relu(F.normalize(x)), lambda x, y: F.relu(F.normalize(x))),
    "of a root": (lambda x, y: relu((x * x).sqrt() - y), lambda x, y: F.relu((x * x).sqrt() - y)),
    "of gates": (
        lambda x, y: relu(x.sigmoid() * x.tanh() - F.softmax(y, -1)),
        lambda x, y: F.relu(x.sigmoid() * x.tanh() - F.softmax(y, -1)),
    ),
    "a long chain": (
        lambda x, y: torch.where(x > 0, long_chain(x, y), 0) + relu(y),
        lambda x, y: torch.where(x > 0, long_chain(x, y), 0) + F.relu(y),
    ),
    "nested alike": (
        lambda x, y: torch.where(x > 0, torch.where(x > 0, x, y), y),
        lambda x, y: torch.where(x > 0, x, y),
    ),
    "softplus by abs": (lambda x, y: F.relu(x) + torch.log1p(torch.exp(-x.abs())), lambda x, y: F.softplus(x)),
    "a stable loss": (
        lambda x, y: x.clamp(min=0) - x * y + torch.log1p(torch.exp(-x.abs())),
        lambda x, y: F.softplus(x) - x * y,
    ),
    "logaddexp": (
        lambda x, y: torch.maximum(x, y) + torch.log1p(torch.exp(-(x - y).abs())),
        lambda x, y: torch.logaddexp(x, y),
    ),
    "max of many by where": (
        lambda x, y: torch.where(top(x) > y, top(x), y),
        lambda x, y: torch.maximum(top(x), y),
    ),
    "min of a max by where": (lambda x, y: torch.where(y <= top(x), y, top(x)), lambda x, y: torch.minimum(y, top(x))),
    "max of many by relu": (lambda x, y: y + F.relu(top(x) - y), lambda x, y: torch.maximum(top(x), y)),
    "max of many twice": (
        lambda x, y: torch.maximum(torch.maximum(y, top(x)), y),
        lambda x, y: torch.cat([x, y]).amax(0).expand(8, 5) * 0 + torch.maximum(top(x), y),
    ),
    "a running max": (
        lambda x, y: functools.reduce(torch.maximum, [*x, *y]),
        lambda x, y: torch.cat([y, x]).amax(0),
    ),
    "max of sums": (lambda x, y: (x + y[0]).amax(0), lambda x, y: top(x) + y[0]),
    "relu of relu of a difference of a max": (
        lambda x, y: F.relu(F.relu(top(x) - y)),
        lambda x, y: torch.maximum(top(x), y) - y,
    ),
}

APART: dict[str, tuple[Function, Function]] = {
    "max and min of many": (lambda x, y: torch.where(top(x) < y, top(x), y), lambda x, y: torch.maximum(top(x), y)),
    "max of many, and of fewer": (lambda x, y: x.amax(0), lambda x, y: torch.cat([x[:7], x[:1]]).amax(0)),
    "max of many at another limit": (
        lambda x, y: torch.where(top(x) > y + 0.125, top(x), y),
        lambda x, y: torch.maximum(top(x), y),
    ),
    "max of many less another value": (lambda x, y: y + F.relu(top(x) - 2 * y), lambda x, y: torch.maximum(top(x), y)),
    "max of many, scaled": (lambda x, y: (2 * x).amax(0), lambda x, y: top(x) + x.mean(0)),
    "the limit of a step": (lambda x, y: (x > 0.5).float(), lambda x, y: (x >= 0.5).float()),
    "the limit of a jump": (lambda x, y: torch.where(x > 0, y, -y), lambda x, y: torch.where(x >= 0, y, -y)),
    "a step behind relu": (lambda x, y: (F.relu(x) > 0).float(), lambda x, y: (F.relu(x) >= 0).float()),
    "equality with zeros": (lambda x, y: (F.relu(x) == 0).float(), lambda x, y: x * 0),
    "a threshold": (lambda x, y: torch.where(x > 0, x, 0), lambda x, y: torch.where(x > 0.01, x, 0)),
    "the other branch": (lambda x, y: torch.where(x > y, x, y), lambda x, y: torch.where(x > y, y, x)),
    "a mask of another value": (lambda x, y: x * (x > 0), lambda x, y: x * (y > 1)),
    "and for or": (
        lambda x, y: torch.where((x > 0) & (y > 1), x, 0),
        lambda x, y: torch.where((x > 0) | (y > 1), x, 0),
    ),
    "a gap between the pieces": (
        lambda x, y: torch.where(x > 0, x, x.exp() - 1),
        lambda x, y: torch.where(x > 0, x, x.exp() - 0.99),
    ),
    "far away": (lambda x, y: torch.where(x > 40, y, x), lambda x, y: x * 1),
    "a sign that holds on one side": (
        lambda x, y: positive_on_one_side(x, y).abs(),
        lambda x, y: power_of(4 - x, y),
    ),
    # Comparisons with nan are false, and so are their opposites.
    "logarithms of negative values": (
        lambda x, y: torch.where((x + 8).log() > 0, x, 0) + F.relu(y),
        lambda x, y: torch.where((x + 8).log() <= 0, 0, x) + relu(y),
    ),
    "roots of negative values": (
        lambda x, y: torch.where((x + 8).sqrt() >= 0, x, y) + F.relu(y),
        lambda x, y: x + relu(y),
    ),
    "powers of negative values": (
        lambda x, y: torch.where((x + 8) ** 0.3 > 1, x, 0) + F.relu(y),
        lambda x, y: torch.where((x + 8) ** 0.3 <= 1, 0, x) + relu(y),
    ),
    "angles beyond the circle": (
        lambda x, y: torch.where((x / 8).acos() > 1, x, 0) + F.relu(y),
        lambda x, y: torch.where((x / 8).acos() <= 1, 0, x) + relu(y),
    ),
    "0/0": (
        lambda x, y: torch.where(F.relu(x + 8) / F.relu(x + 8) > 0, x, y) + F.relu(y),
        lambda x, y: torch.where(F.relu(x + 8) / F.relu(x + 8) <= 0, y, x) + relu(y),
    ),
    "a sum with nan": (
        lambda x, y: torch.where((x + 8).log().sum(-1, True) > 0, x, y) + F.relu(y),
        lambda x, y: torch.where((x + 8).log().sum(-1, True) <= 0, y, x) + relu(y),
    ),
    "the minimum of nan": (
        lambda x, y: torch.where(((x + 8).sqrt() + 1).clamp(max=0) >= 0, x, y) + F.relu(y),
        lambda x, y: x + relu(y),
    ),
    "the sign of nan": (
        lambda x, y: y * torch.sign((x + 8).sqrt() + 1) + F.relu(y),
        lambda x, y: y + relu(y),
    ),
    "a mask written with nan": (
        lambda x, y: torch.where(x.clone().copy_((x + 8).log()) > 0, x, 0) + F.relu(y),
        lambda x, y: torch.where((x + 8).log() <= 0, 0, x) + relu(y),
    ),
    "fmax and fmin of nan": (
        lambda x, y: torch.fmax((x + 8).log(), y) + torch.fmin((x + 8).log(), y),
        lambda x, y: torch.fmax((x + 8).log(), 2 * y) + torch.fmin((x + 8).log(), 2 * y) - y,
    ),
    "a written mask": (mask_written, lambda x, y: x * (x > 0)),
}


ROUNDED: dict[str, tuple[Function, Function]] = {
    "a number for float32": (
        lambda x, y: torch.where(x > torch.tensor(0.1, dtype=torch.float64), y, 0) + F.relu(y),
        lambda x, y: torch.where(x.double() > 0.1, y, 0) + relu(y),
    ),
    "a number for bfloat16": (
        lambda x, y: torch.where(x.bfloat16() > 0.1, y, 0) + F.relu(y),
        lambda x, y: torch.where(x.bfloat16().float() > 0.1, y, 0) + relu(y),
    ),
    "a whole number for float32": (
        lambda x, y: torch.where(x >= 16777217, y, 0) + F.relu(y),
        lambda x, y: torch.where(x.double() >= 16777217, y, 0) + relu(y),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_choices_are_proved(name: str) -> None:
    verdict = prove(*EQUAL[name], (X, Y))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("name", APART)
def test_other_choices_are_not(name: str) -> None:
    before, after = APART[name]
    verdict = prove(before, after, (X, Y))
    assert verdict.kind is Kind.REFUTED or (
        verdict.kind is Kind.PROVED and verdict.claim is not None and not verdict.claim.is_general
    ), verdict
    if verdict.kind is Kind.PROVED:
        assert "choices" in str(verdict.claim)


def test_a_proof_of_choices_is_general() -> None:
    """Comparisons that are functions limit no claim."""
    verdict = prove(lambda x: torch.where(x > 0, x, 0), lambda x: F.relu(x), (X,))
    assert verdict.claim is not None and verdict.claim.is_general, verdict


@pytest.mark.parametrize("name", ROUNDED)
def test_limits_are_rounded_as_kernels_round_them(name: str) -> None:
    """Programs that compare with two roundings of a number differ at the values between."""
    verdict = prove(*ROUNDED[name], (X, Y))
    assert verdict.kind in (Kind.ROUNDING, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize("depth", range(8))
def test_what_a_value_is_made_of_is_known_at_any_depth(depth: int) -> None:
    found = prove(lambda x: elu(deep(x, depth)), lambda x: F.elu(deep(x, depth)), (X,))
    assert found.kind is Kind.PROVED, found
    other = prove(lambda x: elu(deep(x, depth)), lambda x: F.elu(deep(x, depth), 1.01), (X,))
    assert other.kind is Kind.REFUTED, other
