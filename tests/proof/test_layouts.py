"""Programs that read how a tensor lies in memory: a proof is one of the call with the owner's tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, prove
from foldproof.layout import clone

Map = Callable[[Tensor], Tensor]


def in_part(x: Tensor) -> Tensor:
    return torch.cat([x, x + 1], 1)[:, : x.shape[1]]


def in_steps(x: Tensor) -> Tensor:
    return torch.stack([x, x + 1], -1)[..., 0]


def in_one_row(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def in_windows(x: Tensor) -> Tensor:
    return x.flatten().unfold(0, x.shape[1], 1)[: x.shape[0]]


LAYOUTS = [in_part, in_steps, in_one_row, in_windows]
READS: list[Map] = [
    lambda x: x if x.is_contiguous() else 2 * x,
    lambda x: x * x.stride(0),
    lambda x: x.as_strided((6, 4), (4, 1)),
]


class Holding(nn.Module):
    """A function of its input and of a parameter that it reads."""

    def __init__(self, w: Tensor, read: Map) -> None:
        super().__init__()
        self.w, self.read = nn.Parameter(w, requires_grad=False), read

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.read(self.w)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_input_is_read_in_its_layout(layout: Map, read: Map) -> None:
    x = layout(torch.randn(6, 4))
    same = torch.equal(read(x), x)
    for first, second in ((read, torch.clone), (torch.clone, read)):
        assert same or not prove(first, second, (x,)).kind.name.startswith("PROVED")


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_derived_parameter_is_read_in_its_layout(layout: Map, read: Map) -> None:
    w = layout(torch.randn(6, 4))
    same = torch.equal(read(w), w)
    before, after = Holding(w.t().contiguous(), torch.t), Holding(w, read)
    verdict = prove(before, after, (torch.randn(3, 6),), derive=lambda p: {"w": p["w"].t()})
    assert same or not verdict.kind.name.startswith("PROVED")


@pytest.mark.parametrize("layout", [in_part, in_steps])
def test_what_the_layout_does_not_change_is_proved(layout: Map) -> None:
    """Gaps in memory stand in the way of no proof, and a program that asks for them is told of them."""
    w, x = layout(torch.randn(6, 4)), layout(torch.randn(3, 6))
    before = Holding(w.t().contiguous(), torch.t)
    for read in (torch.clone, torch.Tensor.contiguous, lambda w: w if not w.is_contiguous() else 2 * w):
        assert prove(before, Holding(w, read), (x,), derive=lambda p: {"w": p["w"].t()}).kind is Kind.PROVED
        assert prove(read, torch.clone, (x,)).kind is Kind.PROVED


def test_no_difference_is_found_in_a_copy_of_another_layout() -> None:
    """The copies that are run in float64, at random inputs, too, lie as the given tensors do."""
    x = in_steps(torch.randn(6, 4))
    assert prove(lambda x: x.sin(), lambda x: x.sin() * (x.stride(1) - 1), (x,)).kind is Kind.PROVED
    assert prove(lambda x: x / 7, lambda x: x * (1 / 7) * (x.stride(1) - 1), (x,)).kind is not Kind.REFUTED


@pytest.mark.parametrize("layout", [*LAYOUTS, torch.t, lambda x: x[1:], lambda x: x[:0]])
def test_a_clone_is_a_copy_in_the_same_layout(layout: Map) -> None:
    x = layout(torch.randn(6, 4))
    made = clone(x)
    assert torch.equal(made, x) and made.stride() == x.stride()
    assert not x.numel() or made.data_ptr() != x.data_ptr()
