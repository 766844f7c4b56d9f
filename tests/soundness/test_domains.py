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


def overflowing(x: Tensor) -> Tensor:
    """Return x with a first column that is -inf at negative elements, and finite at others."""
    return torch.cat([x[:, :1] * 1e30 * 1e30, x[:, 1:]], 1)


def written(x: Tensor) -> Tensor:
    out = overflowing(x)
    out[:, 2] = -torch.inf
    return out


MASK = torch.tensor([False, False, True, False])
ADDED = torch.zeros(4).masked_fill(MASK, -torch.inf)
MASKED: dict[str, Callable[[Tensor], Tensor]] = {
    "filled": lambda x: overflowing(x).masked_fill(MASK, -torch.inf),
    "added": lambda x: overflowing(x) + ADDED,
    "chosen": lambda x: W(MASK, -torch.inf, overflowing(x)),
    "padded": lambda x: torch.nn.functional.pad(overflowing(x), (0, 1), value=-torch.inf)[:, [0, 1, 4, 3]],
    "written": written,
    "an infinite sum": lambda x: (x + ADDED) + torch.cat([x[:, :1] * 1e30 * 1e30, x[:, 1:] * 0], 1),
}
READ: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(1)[:, [1, -1]],
    "exp": lambda x: x.exp().sum(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "largest": lambda x: x.amax(1),
    "larger": lambda x: torch.maximum(torch.maximum(x[:, 0], x[:, -2]), torch.maximum(x[:, 1], x[:, -1])),
}


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("masked", MASKED)
def test_an_overflow_beside_a_mask_is_not_masked(masked: str, read: str) -> None:
    x = -torch.rand(3, 4) - 0.1
    for given in (x, x * torch.tensor([1e300, 1.0, 1.0, 1.0], dtype=torch.float64)):  # float64 is finite, or not
        verdict = prove(lambda x: READ[read](MASKED[masked](x)), lambda x: READ[read](x[:, [1, 3]]), (given,))
        assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), verdict


def test_a_score_that_overflows_is_not_masked() -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    x, sizes = torch.rand(1, 1, 4, 8) + 0.1, torch.ones(1, 1, 4, 8)
    sizes[:, :, 2] = -1e30
    mask = torch.zeros(4, 4).masked_fill(MASK.roll(1), -torch.inf)
    verdict = prove(
        lambda x: attention(x * 1e20, x * sizes, x, mask),
        lambda x: attention(x * 1e20, (x * sizes)[:, :, :2], x[:, :, :2]),
        (x,),
    )
    assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), verdict
