"""Programs that are defined at different inputs: a proof holds where both are, and must not hide the given inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foldproof import Kind, prove

from .programs import normal

X = normal(3, 4)
W = torch.where
Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


UNDEFINED: dict[str, Pair] = {
    "a logarithm": (lambda x: W(x > 0, x.log(), zero(x)), lambda x: x.log() * (x > 0)),
    "a root": (lambda x: W(x > 0, x.sqrt(), zero(x)), lambda x: x.sqrt() * (x > 0)),
    "a sum": (
        lambda x: W(x > -0.5, (x + 0.5).log(), zero(x)).sum(-1),
        lambda x: ((x + 0.5).log() * (x > -0.5)).sum(-1),
    ),
    "a mask that is filled": (lambda x: x.log().masked_fill(x <= 0, 0), lambda x: x.log() * (x > 0)),
    "a power": (lambda x: W(x > 0, x.pow(1.5), zero(x)), lambda x: (x > 0) * x.pow(1.5)),
    "a difference": (lambda x: x.log() - x.log() + x, lambda x: x * 1),
}
DEFINED: dict[str, Pair] = {
    "a logarithm": (lambda x: W(x > 0, x.log(), zero(x)), lambda x: x.log().masked_fill(x <= 0, 0)),
    "undefined in both": (lambda x: x.log() * (x > 0), lambda x: (x > 0) * x.log()),
    "undefined in both, in sum": (lambda x: x.sqrt() * 2, lambda x: x.sqrt() + x.sqrt()),
    "infinite in both": (lambda x: W(x > 0, x, -torch.inf), lambda x: x.masked_fill(x <= 0, -torch.inf)),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_one_program_is_undefined_at_the_given_inputs(name: str) -> None:
    verdict = prove(*UNDEFINED[name], (X,))
    assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), verdict


@pytest.mark.parametrize("name", UNDEFINED)
def test_both_are_defined_at_the_given_inputs(name: str) -> None:
    verdict = prove(*UNDEFINED[name], (X.abs() + 0.1,))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("name", DEFINED)
def test_both_are_defined_at_the_same_inputs(name: str) -> None:
    verdict = prove(*DEFINED[name], (X,))
    assert verdict.kind is Kind.PROVED, verdict


NAN: dict[str, Callable[[Tensor], Tensor]] = {
    "equal to itself": lambda x: W(x.log() == x.log(), x, 0.0),
    "less itself": lambda x: W(x.log() - x.log() == 0, x, 0.0),
    "one name": lambda x: W((y := x.log()) == y, x, 0.0),
    "not unequal": lambda x: W(x.sqrt() != x.sqrt(), 0.0, x),
    "isnan": lambda x: W(x.log().isnan(), 0.0, x),
    "at least": lambda x: W(x.sqrt() >= x.sqrt(), x, 0.0),
}


@pytest.mark.parametrize("name", NAN)
def test_a_test_for_nan_is_no_jump(name: str) -> None:
    """A value that is computed twice rounds alike, so that nothing but nan differs from itself."""
    for other in (lambda x: x * 1, lambda x: x.abs()):
        verdict = prove(NAN[name], other, (X.abs() + 0.1,))
        assert verdict.kind is Kind.REFUTED, verdict
    same = prove(NAN[name], lambda x: NAN[name](x) * 2 - NAN[name](x), (X.abs() + 0.1,))
    assert same.kind is Kind.PROVED, same


def test_a_jump_that_rounding_causes() -> None:
    """Equal over the real numbers, unlike in floating point at some inputs."""
    verdict = prove(lambda x: W(x * 3 / 3 == x, x, 0.0), lambda x: x * 1, (X,))
    assert verdict.kind is not Kind.REFUTED, verdict
