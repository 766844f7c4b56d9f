"""Identities of elementary functions: pairs that are equal over the reals are proved, and near misses are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof import Kind, prove

from .models import Module, parameter

Function = Callable[..., Any]

X = torch.linspace(-2, 3, 40).reshape(8, 5)
POSITIVE = X.abs() + 0.5

EQUAL: dict[str, tuple[Function, Function]] = {
    "a quotient by a product": (lambda x, y: x / (y * x), lambda x, y: x / y / x),
    "a quotient times its divisor": (lambda x, y: x / y * y, lambda x, y: x * 1),
    "the inverse of an inverse": (lambda x, y: 1 / (1 / x), lambda x, y: x * 1),
    "the square of a root": (lambda x, y: (x * x + 1).sqrt() * (x * x + 1).sqrt(), lambda x, y: x * x + 1),
    "exp of a logarithm": (lambda x, y: (x * x + 1).log().exp(), lambda x, y: x * x + 1),
    "a root over its square": (lambda x, y: (y * y + 1).sqrt() / (y * y + 1), lambda x, y: (y * y + 1).rsqrt()),
    "the root of a square": (lambda x, y: (x * x).sqrt(), lambda x, y: x.abs()),
    "the root of a square by pieces": (lambda x, y: (x**2).sqrt(), lambda x, y: torch.where(x < 0, -x, x)),
    "the inverse root of a square": (lambda x, y: (y * y).rsqrt(), lambda x, y: 1 / y.abs()),
    "the logarithm of a square": (lambda x, y: (y * y).log(), lambda x, y: 2 * y.abs().log()),
    "norms of one element": (
        lambda x, y: sum(torch.linalg.vector_norm(x[:, None], p, 1) for p in (1, 2, 3.5, -2, torch.inf)),
        lambda x, y: 5 * x.abs(),
    ),
    "a norm of one element by its square": (
        lambda x, y: torch.linalg.vector_norm(x[:, None], 3, 1, keepdim=True),
        lambda x, y: x[:, None].square().sum(1, True).sqrt(),
    ),
    "relu twice": (lambda x, y: F.relu(F.relu(x)), lambda x, y: F.relu(x)),
    "relu of a multiple": (lambda x, y: F.relu(4 * x), lambda x, y: 4 * F.relu(x)),
    "relu of the opposite": (lambda x, y: F.relu(x) - F.relu(-x), lambda x, y: x * 1),
    "clamp of a clamp": (lambda x, y: x.clamp(-1, 2).clamp(0, 1), lambda x, y: x.clamp(0, 1)),
    "clamp below a clamp": (lambda x, y: x.clamp(0, 1).clamp(-3, -2), lambda x, y: x * 0 - 2),
    "relu6 of relu": (lambda x, y: F.relu6(F.relu(x)), lambda x, y: F.relu6(x)),
    "clamp by two relus": (lambda x, y: x - F.relu(x - 1.5) + F.relu(-1 - x), lambda x, y: x.clamp(-1, 1.5)),
    "max by relu": (lambda x, y: x + F.relu(y - x), lambda x, y: torch.maximum(x, y)),
    "a chain of max": (
        lambda x, y: torch.maximum(torch.maximum(x, y), x * y),
        lambda x, y: torch.stack([x * y, x, y]).amax(0),
    ),
    "a chain of min": (
        lambda x, y: torch.minimum(x * y, torch.minimum(y, x)),
        lambda x, y: torch.stack([x, y, x * y], -1).amin(-1),
    ),
    "softmax without shift": (lambda x, y: x.softmax(-1), lambda x, y: x.exp() / x.exp().sum(-1, keepdim=True)),
    "exp of log_softmax": (lambda x, y: x.log_softmax(-1).exp(), lambda x, y: x.softmax(-1)),
    "log of softmax": (lambda x, y: x.softmax(-1).log(), lambda x, y: x.log_softmax(-1)),
    "softmax in two parts": (
        lambda x, y: (lambda a, b, m: torch.cat([a, b], -1) / (a.sum(-1, True) + b.sum(-1, True)))(
            torch.exp(x[:, :2] - x.amax(-1, True)), torch.exp(x[:, 2:] - x.amax(-1, True)), None
        ),
        lambda x, y: x.softmax(-1),
    ),
    "online softmax": (lambda x, y: _online_softmax(x), lambda x, y: x.softmax(-1)),
    "sigmoid of the opposite": (lambda x, y: torch.sigmoid(-x), lambda x, y: 1 - torch.sigmoid(x)),
    "tanh by sigmoid": (lambda x, y: torch.tanh(x), lambda x, y: 2 * torch.sigmoid(2 * x) - 1),
    "tanh by sinh and cosh": (lambda x, y: torch.tanh(x), lambda x, y: torch.sinh(x) / torch.cosh(x)),
    "silu in another form": (lambda x, y: F.silu(x), lambda x, y: x - x * torch.sigmoid(-x)),
    "even functions": (lambda x, y: torch.cos(-x) + (-x).abs(), lambda x, y: torch.cos(x) + x.abs()),
    "odd functions": (
        lambda x, y: torch.sin(-x) + torch.atan(-x) + torch.erf(-x),
        lambda x, y: -torch.sin(x) - torch.atan(x) - torch.erf(x),
    ),
    "twice the angle": (lambda x, y: torch.sin(2 * x), lambda x, y: 2 * torch.sin(x) * torch.cos(x)),
    "a sum of angles": (
        lambda x, y: torch.cos(x + y),
        lambda x, y: torch.cos(x) * torch.cos(y) - torch.sin(x) * torch.sin(y),
    ),
    "squares of sine and cosine": (lambda x, y: torch.sin(x) ** 2 + torch.cos(x) ** 2 + x, lambda x, y: x + 1),
    "sgn": (lambda x, y: torch.sgn(x), lambda x, y: torch.sign(x)),
    "celu": (lambda x, y: F.celu(x), lambda x, y: F.elu(x)),
    "elu by relu": (lambda x, y: F.elu(x, 1.5), lambda x, y: F.relu(x) + 1.5 * torch.expm1(x.clamp(max=0))),
    "round to no decimals": (lambda x, y: torch.round(x, decimals=0), lambda x, y: torch.round(x)),
    "a constant exponent": (lambda x, y: x ** torch.tensor(2.0), lambda x, y: x * x),
    "softplus": (lambda x, y: F.softplus(x), lambda x, y: torch.log1p(torch.exp(x))),
    "logsigmoid": (lambda x, y: F.logsigmoid(x), lambda x, y: -torch.log(1 + torch.exp(-x))),
    "a spread inverse": (
        lambda x, y: (1 / ((1 / y[:, :1]) * torch.ones(8, 5))).sum(-1),
        lambda x, y: y[:, 0] * 5,
    ),
    "the remainder": (lambda x, y: torch.remainder(x, 2), lambda x, y: x - 2 * torch.floor(x / 2)),
    "a function of a choice": (
        lambda x, y: F.softplus(F.leaky_relu(x, 0.125)),
        lambda x, y: F.softplus(torch.maximum(x, 0.125 * x)),
    ),
    "a choice of a choice": (
        lambda x, y: F.elu(F.hardswish(x), 1.5),
        lambda x, y: (lambda z: F.relu(z) + 1.5 * torch.expm1(z.clamp(max=0)))(x * F.hardsigmoid(x)),
    ),
    "a loss of a choice": (
        lambda x, y: F.huber_loss(F.relu(x), y, reduction="none"),
        lambda x, y: F.huber_loss(x + F.relu(-x), y, reduction="none"),
    ),
    "a shrink of a sum": (
        lambda x, y: F.softshrink(x + y, 0.5),
        lambda x, y: torch.sign(x + y) * F.relu((x + y).abs() - 0.5),
    ),
    "tanh of a centred value": (
        lambda x, y: torch.tanh(x - x.mean(-1, keepdim=True)),
        lambda x, y: (lambda z: torch.sinh(z) / torch.cosh(z))(x - x.mean(-1, keepdim=True)),
    ),
    "a mask times an exponential": (
        lambda x, y: (x > 0).float() * torch.exp(x),
        lambda x, y: (x > 0).float() / torch.exp(-x),
    ),
    "a mask and a number": (
        lambda x, y: ((x > 0) + 0.5) * torch.exp(x),
        lambda x, y: torch.where(x > 0, 1.5, 0.5) / torch.exp(-x),
    ),
    "the tangent": (lambda x, y: torch.tan(x) * torch.cos(x) ** 2, lambda x, y: torch.sin(x) * torch.cos(x)),
    "an angle": (lambda x, y: torch.atan2(x, torch.ones_like(x)), lambda x, y: torch.atan(x)),
    "the largest of forty": (
        lambda x, y: x.max() + x,
        lambda x, y: (lambda a, b: b + F.relu(a - b) + x)(x[:4].amax(), x[4:].max()),
    ),
}


def _online_softmax(x: Tensor) -> Tensor:
    """Softmax in blocks of columns, whose sums are scaled again where the largest element grows."""
    top, total, blocks = x[:, :1] * 0 - 5, x[:, :1] * 0, []
    for column in x.split(2, -1):
        higher = torch.maximum(top, column.amax(-1, True))
        total = total * torch.exp(top - higher) + torch.exp(column - higher).sum(-1, True)
        blocks, top = [*blocks, column], higher
    return torch.cat([torch.exp(column - top) for column in blocks], -1) / total


NEAR: dict[str, tuple[Function, Function]] = {
    "another slope": (lambda x, y: F.relu(4 * x), lambda x, y: 4.01 * F.relu(x)),
    "relu of a negative multiple": (lambda x, y: F.relu(-4 * x), lambda x, y: -4 * F.relu(x)),
    "one limit of a clamp": (lambda x, y: x.clamp(-1, 2).clamp(0, 1), lambda x, y: x.clamp(0, 1.01)),
    "clamps the other way round": (lambda x, y: x.clamp(0, 1).clamp(0.5, 2), lambda x, y: x.clamp(0.5, 2)),
    "abs of a sum": (lambda x, y: (x + y).abs(), lambda x, y: x.abs() + y.abs()),
    "one of three left out": (
        lambda x, y: torch.maximum(torch.maximum(x, y), x * y),
        lambda x, y: torch.stack([x, y, x]).amax(0),
    ),
    "exp of a product": (lambda x, y: torch.exp(x * y), lambda x, y: torch.exp(x) * torch.exp(y)),
    "exp of half": (lambda x, y: torch.exp(0.5 * x), lambda x, y: torch.exp(x) * 0.5),
    "log of a sum": (lambda x, y: torch.log(y + 1), lambda x, y: torch.log(y) + 1),
    "softmax of another axis": (lambda x, y: x.softmax(0), lambda x, y: x.exp() / x.exp().sum(-1, keepdim=True)),
    "sigmoid of the opposite": (lambda x, y: torch.sigmoid(-x), lambda x, y: -torch.sigmoid(x)),
    "sign of a sum of angles": (
        lambda x, y: torch.cos(x + y),
        lambda x, y: torch.cos(x) * torch.cos(y) + torch.sin(x) * torch.sin(y),
    ),
    "the root of a square": (lambda x, y: torch.sqrt(x * x), lambda x, y: x * 1),
    "floor of the opposite": (lambda x, y: torch.floor(-x), lambda x, y: -torch.floor(x)),
    "trunc and floor": (lambda x, y: torch.fmod(x, 2), lambda x, y: torch.remainder(x, 2)),
    "the inverse of a spread inverse": (
        lambda x, y: 1 / ((1 / y[:, :1]) * torch.ones(8, 5)),
        lambda x, y: y[:, :1] * 5 + x * 0,
    ),
    "elu and celu": (lambda x, y: F.celu(x, 1.5), lambda x, y: F.elu(x, 1.5)),
    "a function of a choice": (
        lambda x, y: F.softplus(F.leaky_relu(x, 0.125)),
        lambda x, y: F.softplus(torch.maximum(x, 0.13 * x)),
    ),
    "an angle": (lambda x, y: torch.atan2(x, y - 2), lambda x, y: torch.atan(x / (y - 2))),
    "a number in a mask": (
        lambda x, y: (x > 0).masked_fill(y > 1, 1.5).float() * torch.exp(x),
        lambda x, y: torch.where(y > 1, 1.5, (x > 0).float()) / torch.exp(-x),
    ),
    "tanh of an eighth": (lambda x, y: torch.tanh(x / 8), lambda x, y: torch.tanh(x / 4) / 2),
    "a shrink": (lambda x, y: F.softshrink(x, 0.5), lambda x, y: F.hardshrink(x, 0.5)),
    "decimals": (lambda x, y: torch.round(x, decimals=1), lambda x, y: torch.round(x)),
    "an exponent that varies": (lambda x, y: y ** torch.tensor([2.0, 2, 2, 2, 2.1]), lambda x, y: y * y),
}


@pytest.mark.parametrize("name", EQUAL)
def test_identities_are_proved(name: str) -> None:
    verdict = prove(*EQUAL[name], (X, POSITIVE))
    assert verdict.kind is Kind.PROVED, verdict


def test_the_largest_value_is_no_choice_and_its_index_is_one() -> None:
    def chain(x: Tensor, y: Tensor) -> Tensor:
        return torch.maximum(torch.maximum(x[0], x[1]), x[2])

    whole = prove(chain, lambda x, y: x[:3].amax(0), (X, POSITIVE))
    assert whole.kind is Kind.PROVED and whole.claim is not None and whole.claim.is_general
    indexed = prove(chain, lambda x, y: x[:3].max(0).values, (X, POSITIVE))
    assert indexed.kind is Kind.PROVED and indexed.proof is not None and indexed.proof.branching == ("max",)


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_are_refuted(name: str) -> None:
    verdict = prove(*NEAR[name], (X, POSITIVE))
    assert verdict.kind is Kind.REFUTED, verdict


def _written(change: Callable[[Tensor], Any]) -> Function:
    """Return a program that changes a value after another was computed from it, and reads both."""

    def program(x: Tensor, y: Tensor) -> Tensor:
        a, m = x * 1, y * 1
        difference = a - m
        change(a)
        return torch.exp(difference) * torch.exp(m) - torch.exp(a)

    return program


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.add_(1),
        lambda a: a[:, 1:].mul_(2),
        lambda a: a.t().neg_(),
        lambda a: a.view(-1)[3:].zero_(),
        lambda a: a.copy_(a * 2),
        lambda a: a.detach().add_(1),
        lambda a: a.reshape(8, 5).add_(1),
    ],
)
def test_facts_end_with_a_write(change: Callable[[Tensor], Any]) -> None:
    """Without the write, both are 0."""
    verdict = prove(_written(change), lambda x, y: x * 0, (X, POSITIVE))
    assert verdict.kind is Kind.REFUTED, verdict
    assert prove(_written(lambda a: None), lambda x, y: x * 0, (X, POSITIVE)).kind is Kind.PROVED


@pytest.mark.parametrize("target", ["difference", "m"])
def test_facts_end_with_a_write_to_the_result(target: str) -> None:
    def program(x: Tensor, y: Tensor) -> Tensor:
        values = {"m": y * 1}
        values["difference"] = x - values["m"]
        values[target].add_(0.5)
        return torch.exp(values["difference"]) * torch.exp(values["m"])

    verdict = prove(program, lambda x, y: torch.exp(x), (X, POSITIVE))
    assert verdict.kind is Kind.REFUTED, verdict
    wanted = prove(program, lambda x, y: torch.exp(x + 0.5), (X, POSITIVE))
    assert wanted.kind is not Kind.REFUTED, wanted


def test_a_root_ends_with_a_write_to_it_or_to_its_square() -> None:
    def root_written(x: Tensor, y: Tensor) -> Tensor:
        root = x * 1
        square = root * root
        root.add_(y)
        return square.sqrt()

    def square_written(x: Tensor, y: Tensor) -> Tensor:
        square = x * x
        square.add_(y)
        return square.sqrt()

    assert prove(root_written, lambda x, y: (x + y).abs(), (X, POSITIVE)).kind is Kind.REFUTED
    assert prove(square_written, lambda x, y: torch.where(x < 0, -x, x), (X, POSITIVE)).kind is Kind.REFUTED


SHARED: dict[str, Callable[[Tensor], Tensor]] = {
    "log of exp": lambda z: z.exp().log(),
    "the inverse of an inverse": lambda z: z.reciprocal().reciprocal(),
    "the square of a root": lambda z: z.sqrt() * z.sqrt(),
    "the root of a square": lambda z: (z * z).sqrt(),
    "an absolute value": lambda z: z.abs(),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_value_that_facts_name_is_a_copy(name: str) -> None:
    """A write to it does not reach the value that it is equal to, nor the other way round."""

    def source_written(x: Tensor) -> Tensor:
        z = x * x
        out = SHARED[name](z)
        z.add_(1)
        return out

    def result_written(x: Tensor) -> Tensor:
        z = x * x
        SHARED[name](z).add_(1)
        return z

    for program in (source_written, result_written):
        verdict = prove(program, lambda x: x * x + 1, (POSITIVE,))
        assert verdict.kind is Kind.REFUTED, verdict
        assert prove(program, lambda x: x * x, (POSITIVE,)).kind is Kind.PROVED


CONSTANTS: dict[str, tuple[Function, Function]] = {
    "an inverse": (lambda x: x / 1.7, lambda x: x * (1 / 1.7)),
    "log by log2": (lambda x: torch.log2(x * x + 1) * math.log(2), lambda x: torch.log(x * x + 1)),
    "log by log10": (lambda x: torch.log10(x * x + 1) / math.log10(math.e), lambda x: torch.log(x * x + 1)),
    "exp by exp2": (lambda x: torch.exp2(x * (1 / math.log(2))), lambda x: torch.exp(x)),
    "exp2 by exp": (lambda x: torch.exp2(x), lambda x: torch.exp(x * math.log(2))),
    "a camera": (lambda x: x / 255, lambda x: x * (1 / 255)),
    **{
        f"the correction of a variance of {n}": (lambda x, n=n: x * n / (n - 1), lambda x, n=n: x * (n / (n - 1)))
        for n in (49, 2048, 1568, 100352, 401408)
    },
    **{
        f"1/√{d}": (lambda x, d=d: x / math.sqrt(d), lambda x, d=d: x * d**-0.25 * d**-0.25)
        for d in (4, 8, 24, 40, 64, 72, 80, 96, 128)
    },
    "a table": (
        lambda x: x * torch.cos(torch.arange(5.0) * 0.37 + 0.1),
        lambda x: x * torch.cos(torch.arange(5, dtype=torch.float64) * 0.37 + 0.1).float(),
    ),
    "a long table": (
        lambda x: x.flatten() * torch.sin(torch.arange(40.0) / 7),
        lambda x: x.flatten() * torch.sin(torch.arange(40.0) * (1 / 7)),
    ),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_rounded_constants_are_named(name: str) -> None:
    verdict = prove(*CONSTANTS[name], (X,))
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    if verdict.kind is Kind.PROVED_WITHIN:
        assert verdict.steps and verdict.rounding is not None
        assert all(0 < step.bound < 1e-5 and "read as" in step.name for step in verdict.steps)


OFF: dict[str, tuple[Function, Function]] = {
    "a scale of another head": (lambda x: x / math.sqrt(80), lambda x: x / math.sqrt(81)),
    "a scale that is 1% off": (lambda x: x / math.sqrt(64), lambda x: x * 0.1238),
    "a logarithm that is 1e-5 off": (lambda x: torch.exp2(x), lambda x: torch.exp(x * (math.log(2) + 1e-5))),
    "a correction of one number more": (lambda x: x * 2048 / 2047, lambda x: x * (2049 / 2048 + 1e-4)),
    "a constant that is 1e-5 off": (lambda x: x / 1.7, lambda x: x * (1 / 1.70002)),
    "an angle that is one position off": (
        lambda x: x * torch.cos(torch.arange(5.0) * 0.37),
        lambda x: x * torch.cos(torch.arange(1.0, 6.0) * 0.37),
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_other_constants_are_not_proved(name: str) -> None:
    verdict = prove(*OFF[name], (X,))
    assert verdict.kind in (Kind.REFUTED, Kind.UNDECIDED), verdict


AMPLIFIED: dict[str, tuple[Function, Function]] = {
    "a jump": (
        lambda x: x * torch.floor(x * 0 + torch.tensor([1.0, 3, 1, 1, 1])),
        lambda x: x * torch.floor(x * 0 + torch.tensor([1.0, 2.9999998, 1, 1, 1])),
    ),
    "large numbers that cancel": (
        lambda x: (x * 0 + torch.tensor([1e7, 1e7 + 1, 3, 4, 5]) - 1e7) * x,
        lambda x: (x * 0 + torch.tensor([1e7, 1e7 + 2, 3, 4, 5]) - 1e7) * x,
    ),
}


@pytest.mark.parametrize("name", AMPLIFIED)
def test_a_rounded_constant_does_not_explain_other_outputs(name: str) -> None:
    verdict = prove(*AMPLIFIED[name], (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


GIVEN, ROUNDED = 0.7311, 0.73110026
AMPLIFIED_ELSEWHERE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "a choice": lambda x, c: c * (5 * x + torch.where(c * x - GIVEN * x >= 0, x, -x)),
    "a number that is read": lambda x, c: c * (5 * x + x * float((c * x - GIVEN * x).min() >= 0)),
    "numbers that cancel": lambda x, c: x + torch.relu(-x) * (x * 0 + torch.tensor([c]) - GIVEN) * 1e7,
    "a divisor near 0": lambda x, c: x + torch.relu(-x) / (c * x - GIVEN * x + 1e-7 * x),
}


@pytest.mark.parametrize("name", AMPLIFIED_ELSEWHERE)
def test_a_rounded_constant_does_not_explain_other_outputs_at_other_inputs(name: str) -> None:
    """The given inputs are positive, where it changes nothing."""
    function, inputs = AMPLIFIED_ELSEWHERE[name], (X.abs() + 0.1,)
    verdict = prove(lambda x: function(x, GIVEN), lambda x: function(x, ROUNDED), inputs)
    assert verdict.kind is not Kind.PROVED_WITHIN, verdict


def _fraction(number: Tensor, weight: float) -> Module:
    """Large weights have fractions that the rounding of the number decides."""

    def function(self: Any, x: Tensor) -> Tensor:
        y = x * self.w**12 * number
        return torch.exp(y - torch.floor(y))

    return Module(function, w=parameter(*[weight] * 5))


def test_a_jump_at_other_parameters_limits_the_claim_to_these() -> None:
    numbers, x = (torch.tensor(3.0).sqrt(), torch.tensor(3.0).sqrt() + 1.2e-7), torch.rand(4, 5)
    verdict = prove(*(_fraction(n, 0.9) for n in numbers), (x,))
    assert verdict.kind is Kind.PROVED_WITHIN, verdict
    assert verdict.claim is not None and not verdict.claim.all_parameters
    verdict = prove(*(_fraction(n, 5.0) for n in numbers), (x,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize(
    "other", [lambda x: x * (0.3 + 3e-10), lambda x: x * torch.tensor([0.3 + 3e-10], dtype=torch.float64)]
)
def test_constants_are_near_by_the_rounding_of_their_own_dtype(other: Function) -> None:
    verdict = prove(lambda x: x * 0.3, other, (X.double(),))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x.sqrt() * x.sqrt(), lambda x: x * 1),
        (lambda x: x.log().exp(), lambda x: x * 1),
        (lambda x: 1 / (x.rsqrt() * x.rsqrt()), lambda x: x * 1),
    ],
)
def test_domains_count(one: Function, other: Function) -> None:
    """Equal at the given inputs, which are positive, and nan on one side at others."""
    verdict = prove(one, other, (POSITIVE,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize(
    "divisor",
    [
        F.relu,
        torch.floor,
        torch.trunc,
        torch.round,
        lambda x: x + x.abs(),
        lambda x: x.clamp(-1, 1) - 1,
        lambda x: F.softshrink(x, 0.5),
        lambda x: torch.maximum(x, -x) - x,
        lambda x: x - torch.stack([x, x * 2]).amax(0),
        lambda x: F.elu(x) - x,
        lambda x: x.sign() + 1,
        lambda x: (x * x).sqrt() - x,
        lambda x: (x * x) ** 0.5 - x,
        lambda x: torch.log(x * x) - 2 * torch.log(x),
        lambda x: torch.lgamma(x + 1) - torch.lgamma(x) - torch.log(x),
    ],
)
def test_divisors_that_vanish_on_a_region_do_not_cancel(divisor: Function) -> None:
    x = POSITIVE + 1.6
    verdict = prove(lambda x: x + divisor(x) / divisor(x), lambda x: x + 1, (x,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize("divisor", [torch.exp, lambda x: F.relu(x) + 1, lambda x: x.abs().exp() + x * x])
def test_positive_divisors_cancel(divisor: Function) -> None:
    verdict = prove(lambda x: F.relu(x) / divisor(x) * divisor(x), lambda x: F.relu(x), (X,))
    assert verdict.kind is Kind.PROVED, verdict


def test_single_points_are_told() -> None:
    assert any("single points" in note for note in prove(*EQUAL["a quotient times its divisor"], (X, POSITIVE)).notes)


def test_an_overflow_on_one_side_is_told() -> None:
    verdict = prove(*EQUAL["softmax without shift"], (X * 100, POSITIVE))
    assert verdict.kind is Kind.UNDECIDED and "finite in one program only" in verdict.reason, verdict


MASK = torch.zeros(6, 6).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -math.inf)


@pytest.mark.parametrize("mask", [MASK, MASK.clamp(min=torch.finfo(torch.float32).min)], ids=["-inf", "finfo.min"])
def test_masks_among_the_inputs(mask: Tensor) -> None:
    """Random inputs keep the masked places, so that outputs stay finite and depend on the inputs."""
    q, k, v = torch.randn(3, 1, 2, 6, 8).unbind()

    def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / math.sqrt(8) + mask).softmax(-1) @ v

    def by_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    verdict = prove(by_hand, by_sdpa, (q, k, v, mask))
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    verdict = prove(by_hand, lambda q, k, v, mask: by_sdpa(q, k * 1.01, v, mask), (q, k, v, mask))
    assert verdict.kind is Kind.REFUTED, verdict


def test_writes_into_new_ones() -> None:
    def written(x: Tensor, fill: float) -> Tensor:
        out = torch.full((8, 5), fill)
        out[:4] = x[:4]
        return out + x

    def put_together(x: Tensor) -> Tensor:
        return torch.cat([x[:4], torch.ones(4, 5)]) + x

    assert prove(lambda x: written(x, 1.0), put_together, (X,)).kind is Kind.PROVED
    assert prove(lambda x: written(x, 1.5), put_together, (X,)).kind is Kind.REFUTED
