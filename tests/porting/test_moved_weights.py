"""Conversions that move a large weight about: proved if each element comes back to its place, and refuted otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind

ROWS, COLUMNS = 300, 256


def copied_before_a_write(w: Tensor) -> Tensor:
    w = w.clone()
    first = w[:10]
    made = torch.cat([first, w[10:]])
    first.zero_()
    return made


def viewed_before_a_write(w: Tensor) -> Tensor:
    w = w.clone()
    made = w.view(ROWS, COLUMNS)
    w[7] = w[8]
    return made


def mirrored(w: Tensor) -> Tensor:
    w = w.clone()
    return w.copy_(w.flip(0))


def mirrored_twice(w: Tensor) -> Tensor:
    return mirrored(mirrored(w))


def written_through_a_view(w: Tensor) -> Tensor:
    made = torch.empty(ROWS, COLUMNS)
    made.t().copy_(w.t())
    return made


def written_through_a_view_in_another_order(w: Tensor) -> Tensor:
    made = torch.empty(ROWS, COLUMNS)
    made.t().copy_(w.t().flip(1))
    return made


def elements_swapped(w: Tensor) -> Tensor:
    w = w.clone()
    one = w[4, 4].clone()
    w[4, 4] = w[4, 5]
    w[4, 5] = one
    return w


def elements_swapped_twice(w: Tensor) -> Tensor:
    return elements_swapped(elements_swapped(w))


def filled_but_for_a_row(w: Tensor) -> Tensor:
    made = torch.zeros(ROWS, COLUMNS)
    made[:150], made[151:] = w[:150], w[151:]
    return made


def rows_taken_from_one(w: Tensor) -> Tensor:
    return w[:1].expand(ROWS, COLUMNS).contiguous()


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(ROWS, COLUMNS))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w.t()


@pytest.mark.parametrize(
    "move",
    [
        *(copied_before_a_write, viewed_before_a_write, mirrored, mirrored_twice, written_through_a_view),
        *(written_through_a_view_in_another_order, elements_swapped, elements_swapped_twice, filled_but_for_a_row),
        rows_taken_from_one,
    ],
    ids=lambda move: move.__name__,
)
def test_a_moved_weight(move: Callable[[Tensor], Tensor]) -> None:
    model = Product()
    with torch.no_grad():
        right = torch.equal(move(model.w.detach()), model.w)
    x = torch.randn(2, COLUMNS)
    verdict = foldproof.prove(model, Product(), (x,), convert=lambda state: {"w": move(state["w"])})
    assert verdict.kind is (Kind.PROVED if right else Kind.REFUTED), verdict
