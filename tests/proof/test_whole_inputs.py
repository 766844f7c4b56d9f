"""Whole numbers that a program makes real ones: float32 rounds their quotients, and the proof does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import foldproof
from foldproof import Kind, prove

PIXELS = torch.randint(0, 256, (2, 3, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Prepare = Callable[[Tensor], Tensor]


class Stem(nn.Module):
    """A convolution of pixels, less a mean and over a spread."""

    def __init__(self, prepare: Prepare) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.prepare = nn.Conv2d(3, 4, 3), prepare
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("spread", torch.rand(1, 3, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv((self.prepare(x) - self.mean) / self.spread)


class Split(Stem):
    """The same, with the mean taken from what the convolution makes of the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight / self.spread
        return functional.conv2d(self.prepare(x), weight, self.conv.bias) - functional.conv2d(
            self.mean.expand(1, 3, 3, 3), weight
        )


PREPARED: dict[str, Prepare] = {
    "cast, then divided": lambda x: x.float() / 255,
    "divided": lambda x: x / 255,
    "multiplied": lambda x: x * 0.017,
    "taken from a number": lambda x: 1.5 - x / 127.5,
    "with another tensor": lambda x: x / torch.tensor([3.0, 7.0, 11.0]).reshape(1, 3, 1, 1),
    "a cast of int64": lambda x: x.long().to(torch.float32) / 3,
}


@pytest.mark.parametrize("name", PREPARED)
def test_arithmetic_on_whole_numbers_is_exact(name: str) -> None:
    verdict = prove(Stem(PREPARED[name]), Split(PREPARED[name]), (PIXELS,))
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and verdict.claim.all_parameters


@pytest.mark.parametrize("name", PREPARED)
def test_other_numbers_are_not_proved(name: str) -> None:
    def other(x: Tensor) -> Tensor:
        return PREPARED[name](x) * (1 + 1e-6)

    assert prove(Stem(PREPARED[name]), Split(other), (PIXELS,)).kind not in (Kind.PROVED, Kind.PROVED_WITHIN)


def test_overflow_of_whole_numbers_is_no_arithmetic_of_real_ones() -> None:
    """In uint8, 2x wraps around; the cast comes after it."""
    verdict = prove(Stem(lambda x: (x * 2).float()), Split(lambda x: x.float() * 2), (PIXELS,))
    assert verdict.kind is Kind.REFUTED, verdict


def test_a_stem_of_pixels_is_folded_and_proved() -> None:
    folded = foldproof.fuse(Stem(PREPARED["divided"]).eval(), (PIXELS,))
    assert folded.verdict.kind is Kind.PROVED, folded.verdict
    assert folded.operators_after.total() < folded.operators_before.total()


LARGE = torch.tensor([[70000, 5, 100000, 3]], dtype=torch.int32)
ONE = torch.ones(1, 1, dtype=torch.float16)
OVERFLOWING: dict[str, tuple[Prepare, Prepare]] = {
    "a cast": (lambda x: x.half() / 3, lambda x: (x / 3).half()),
    "a product": (lambda x: x * ONE / 3, lambda x: (x / 3).half()),
    "a sum": (lambda x: (x + ONE) / 3, lambda x: ((x + 1) / 3).half()),
    "a divisor": (lambda x: 3 * ONE / x, lambda x: (3 / x).half()),
    "a product of casts": (lambda x: (x % 1024).half() * 1024 / 30, lambda x: (x % 1024).half() * (1024 / 30)),
    "a divisor that is bounded": (lambda x: 9e4 / x.half(), lambda x: (9e4 / x).half()),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_a_real_number_that_overflows_is_not_exact(name: str) -> None:
    """Whole numbers are the given ones, and those are infinite in float16."""
    first, second = OVERFLOWING[name]
    verdict = prove(first, second, (LARGE,))
    assert verdict.kind is not Kind.PROVED, verdict


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.int64], ids=str
)
def test_other_whole_numbers_of_any_dtype_are_tried(dtype: torch.dtype) -> None:
    x = torch.tensor([4, 2, 6, 8]).to(dtype)
    assert prove(lambda x: x.float() / 2, lambda x: x.to(torch.int32) / 2, (x,)).kind is Kind.PROVED
    assert prove(lambda x: x.float() / 2, lambda x: (x.to(torch.int32) >> 1).float(), (x,)).kind is Kind.REFUTED


class Looked(nn.Module):
    """Rows of a table that is no parameter, scaled, as the scores of attention are."""

    def __init__(self, table: Tensor, scale: float) -> None:
        super().__init__()
        self.table, self.scale = table, scale

    def forward(self, x: Tensor) -> Tensor:
        return (self.table[x].sin() * self.scale).softmax(-1)


class Beside(Looked):
    """The table, scaled, beside real numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return ((self.table * x).sin() * self.scale).softmax(-1)


ROWS, INDICES = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[5, 3, 1], [7, 0, 2]])


def round_scale(module: fx.GraphModule) -> fx.GraphModule:
    for node in module.graph.nodes:
        node.args = tuple(0.49999997 if x == 0.5 else x for x in node.args)
    module.recompile()
    return module


@pytest.mark.parametrize(("model", "x", "tried"), [(Looked, INDICES, 1), (Beside, torch.ones(9, 4), 2)])
def test_constants_are_not_tried_as_other_parameters(model: type[Looked], x: Tensor, tried: int) -> None:
    exported = torch.export.export(model(ROWS, 0.5), (x,)).module()
    verdict = foldproof.prove_pass(round_scale, exported, (x,))
    assert verdict.kind in (Kind.ROUNDING, Kind.PROVED_WITHIN), verdict
    assert verdict.rounding is not None and verdict.rounding.trials == tried


def test_whole_numbers_that_change_nothing_are_no_evidence() -> None:
    alike = ROWS[:1].expand(9, 4)
    verdict = prove(Looked(alike, 0.5), Looked(alike, 0.49999997), (INDICES,))
    assert verdict.kind is Kind.UNDECIDED and "hardly depend on the inputs" in verdict.reason
