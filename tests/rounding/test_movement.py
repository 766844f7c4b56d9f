"""The movement of computed numbers when their operands are rounded: against the derivatives, element by element."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foldproof.rounding.movement import Movement

EPSILON = 1e-7
GENERATOR = torch.Generator().manual_seed(0)
W = torch.randn(4, 3, 3, 3, generator=GENERATOR, dtype=torch.float64)
ONE = torch.randn(4, 3, 1, 1, generator=GENERATOR, dtype=torch.float64)
S = torch.rand(4, generator=GENERATOR, dtype=torch.float64) + 0.5


def added_in_place(w: Tensor, one: Tensor) -> Tensor:
    total = torch.zeros_like(w)
    total[:, :, 1:2, 1:2] += one
    total += w
    return total.neg()


EXACT: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "a kernel in another": (lambda w, one: w + F.pad(one, [1] * 4), (W, ONE)),
    "in place, through views": (added_in_place, (W, ONE)),
    "a folded normalisation": (lambda w, s: w * torch.rsqrt(s + 1e-3).reshape(-1, 1, 1, 1), (W, S)),
    "a product with a vector": (lambda w, s: w.flatten(1).t() @ s, (W, S)),
    "one kernel behind another": (lambda w, one: torch.einsum("oikl,pixy->opkl", w, one), (W, ONE)),
    "a convolution": (lambda w, x, s: F.conv2d(x, w, s, padding=1), (W, W[:2] * 2, S)),
    "a linear": (lambda w, s: F.linear(s, w.reshape(4, -1).t(), w.flatten()[:27]), (W, S)),
    "a sum, converted": (lambda w, one: (w + F.pad(one, [1] * 4)).float(), (W, ONE)),
    "a quotient": (lambda w, s: w[:, 0, 0] / s.reshape(4, 1), (W, S)),
}
"""Functions in which no operand reaches an element by two ways, so that the sum of absolute values is the movement."""

ROUGH: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "a softmax": (lambda w: torch.softmax(w, 1), (W,)),
    "a norm": (lambda w: torch.linalg.vector_norm(w, dim=1), (W,)),
    "a standardised weight": (lambda w: (w - w.mean(1, keepdim=True)) / (w * w).mean(1, keepdim=True).sqrt(), (W,)),
}


def move(function: Callable[..., Tensor], operands: tuple[Tensor, ...]) -> Tensor:
    movement = Movement()
    with torch.no_grad(), movement:
        for x in operands:
            movement.note(x, x.abs() * EPSILON)
        return movement.of(function(*operands))


def expect(function: Callable[..., Tensor], operands: tuple[Tensor, ...]) -> Tensor:
    """Σ |∂f/∂x|·|x|·ε."""
    shape = function(*operands).shape
    rows = torch.autograd.functional.jacobian(function, operands)
    parts = [(j.reshape(*shape, -1).abs() @ x.abs().reshape(-1)) for j, x in zip(rows, operands, strict=True)]
    return sum(parts) * EPSILON  # type: ignore[return-value]


@pytest.mark.parametrize("name", EXACT)
def test_it_is_the_derivatives(name: str) -> None:
    function, operands = EXACT[name]
    torch.testing.assert_close(move(function, operands), expect(function, operands), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ROUGH)
def test_it_has_their_size(name: str) -> None:
    function, operands = ROUGH[name]
    ratio = move(function, operands) / expect(function, operands)
    assert float(ratio.min()) > 0.1 and float(ratio.median()) < 10


def test_what_depends_on_nothing_that_moves_stays() -> None:
    assert not move(lambda w: torch.ones_like(w) * 3, (W,)).any()


def test_terms_that_cancel_move_all_the_same() -> None:
    """Of 400,000 pairs, eight random roundings leave some where they were."""
    a = torch.randn(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(move(lambda a, b: a + b, (a, -a)), 2 * a.abs() * EPSILON, rtol=1e-6, atol=0)
