"""Reads of numbers from tensors, of which those that depend on data or draws let a program take another way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foldproof.graph.reads import Reads, reads_data
from foldproof.torch_internals import record_operators

X, TABLE = torch.tensor([0.5, -2.0]), torch.tensor([1, 2])


def written_by(write: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    """Return a program that reads from memory after a write, through a view that it took before."""

    def program(x: Tensor) -> Tensor:
        held = torch.zeros(2)
        first = held[0]
        write(held, x)
        return x * first.item()

    return program


def write_twice(held: Tensor, x: Tensor) -> None:
    held[0] = x.sum()
    held[1] = 0.0


DATA: dict[str, Callable[[Tensor], Tensor]] = {
    "an input": lambda x: x * x[0].item(),
    "a comparison": lambda x: x if torch.equal(x, x.abs()) else -x,
    "a list": lambda x: x * x.tolist()[0],
    "an array": lambda x: x * float(x.numpy()[0]),
    "a draw": lambda x: x * torch.rand(()).item(),
    "a draw in place": lambda x: x * torch.empty(()).uniform_().item(),
    "a draw of constants": lambda x: x * torch.bernoulli(torch.full((), 0.5)).item(),
    "a write": written_by(lambda held, x: held.copy_(x)),
    "a write to a part": written_by(lambda held, x: held[0].copy_(x[1])),
    "a write to a part, then a constant": written_by(write_twice),
    "a number of elements": lambda x: x * x[x > 0].shape[0],
    "a number of places": lambda x: x * (x > 0).nonzero().shape[0],
    "a number of different elements": lambda x: x * x.unique().shape[0],
    "a write to a list": written_by(lambda held, x: torch._foreach_copy_([held], [x])),  # type: ignore[attr-defined]
}

CONSTANT: dict[str, Callable[[Tensor], Tensor]] = {
    "positions": lambda x: x * torch.arange(3).max().item(),
    "a list of positions": lambda x: x * torch.arange(3).tolist()[1],
    "a table": lambda x: x * TABLE.max().item(),
    "a number of positions": lambda x: x * TABLE[TABLE > 1].shape[0],
    "elements at positions": lambda x: x[TABLE - 1],
    "nothing": lambda x: x * torch.rand(()),
    "a write of constants": written_by(lambda held, x: held.fill_(3.0)),
}


def reads(program: Callable[[Tensor], Tensor]) -> bool:
    with Reads():
        return reads_data(record_operators(lambda x: [program(x)], [X]))


@pytest.mark.parametrize("name", DATA)
def test_data(name: str) -> None:
    assert reads(DATA[name])


@pytest.mark.parametrize("name", CONSTANT)
def test_constants(name: str) -> None:
    assert not reads(CONSTANT[name])


def test_a_write_after_the_read() -> None:
    def program(x: Tensor) -> Tensor:
        held = torch.zeros(2)
        number = held[0].item()
        held.copy_(x)
        return held + number

    assert not reads(program)
