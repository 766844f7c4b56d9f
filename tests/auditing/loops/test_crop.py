"""Reductions far past their input: only the iterations that are needed are recorded."""

from __future__ import annotations

from typing import Any

import pytest
import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

import foldproof
from foldproof.auditing.loops import LOWERING, SCHEDULING, crop, program
from foldproof.verdict import Kind

ROW, COLUMN, DEPTH = sympy.symbols("i j k", integer=True)


class Body:
    """A loop body of our own, in place of Inductor's."""

    def __init__(self, run: Any) -> None:
        self.run = run


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "call_loop_body", lambda body, handler: body.run(handler))


def needed(run: Any) -> list[int]:
    return [*crop.crop(Body(run), {ROW: 6, COLUMN: 40, DEPTH: 50}, 2).values()]


def padded(ops: Any, index: Any, other: float = 0.0, limit: int = 3) -> Any:
    inside = ops.lt(ops.index_expr(index, torch.int64), ops.constant(limit, torch.int64))
    at_least = ops.ge(ops.index_expr(index, torch.int64), ops.constant(0, torch.int64))
    return ops.masked(ops.and_(at_least, inside), lambda: ops.load("x", ROW + index), other)


def total(ops: Any, value: Any, kind: str = "sum") -> None:
    ops.store_reduction("y", ROW, ops.reduction(torch.float32, torch.float32, kind, value))


def test_limits_are_those_of_the_mask() -> None:
    assert needed(lambda ops: total(ops, padded(ops, COLUMN))) == [6, 3, 50]
    assert needed(lambda ops: total(ops, padded(ops, 2 * COLUMN + DEPTH))) == [6, 2, 3]
    assert needed(lambda ops: total(ops, padded(ops, COLUMN - ROW))) == [6, 8, 50]  # 5 further down
    assert needed(lambda ops: total(ops, padded(ops, COLUMN + ROW - 4))) == [6, 7, 50]
    assert needed(lambda ops: total(ops, padded(ops, COLUMN, limit=0))) == [6, 1, 50]
    assert needed(lambda ops: total(ops, padded(ops, COLUMN, -float("inf")), "max")) == [6, 3, 50]


def test_no_limit_is_behind_the_range() -> None:
    assert needed(lambda ops: total(ops, padded(ops, COLUMN, limit=100))) == [6, 40, 50]


def test_indices_by_value_are_not_one_index() -> None:
    def run(ops: Any) -> None:
        places = [ops.indirect_indexing(ops.constant(0, torch.int64), 100) for _ in range(2)]
        total(ops, padded(ops, COLUMN + places[0] - places[1]))

    assert needed(run) == [6, 40, 50]


def both(ops: Any) -> None:
    total(ops, padded(ops, COLUMN))
    total(ops, padded(ops, DEPTH))


def unmasked(ops: Any) -> None:
    ops.load("z", COLUMN)
    total(ops, padded(ops, COLUMN))


def stored(ops: Any) -> None:
    value = padded(ops, COLUMN)
    ops.store("z", COLUMN, value)
    total(ops, value)


def squared(ops: Any) -> None:
    value = padded(ops, COLUMN)
    total(ops, ops.exp(value))


@pytest.mark.parametrize(
    "run",
    [
        both,
        unmasked,
        stored,
        squared,
        lambda ops: total(ops, padded(ops, COLUMN, 1.0)),
        lambda ops: total(ops, padded(ops, COLUMN), "max"),
        lambda ops: total(ops, padded(ops, COLUMN), "argmax"),
        lambda ops: total(ops, padded(ops, -COLUMN)),
        lambda ops: total(ops, padded(ops, COLUMN * DEPTH)),
        lambda ops: total(ops, ops.sort(padded(ops, COLUMN))),
    ],
)
def test_all_iterations_are_needed(run: Any) -> None:
    assert needed(run) == [6, 40, 50]


class Pools(nn.Module):
    """Windows of 40 on an input of 3, by EfficientNet's kind of global pool, and with padding."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mean = nn.functional.avg_pool2d(x, 40, ceil_mode=True)
        shifted = nn.functional.avg_pool2d(x, 40, stride=8, padding=20, count_include_pad=False)
        return mean, shifted


def test_pools_are_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(program, "MAX_ITERATIONS", 2_000)
    found = foldproof.audit(Pools(), (torch.randn(2, 3, 3, 3),), locate=False)
    kinds = {step.name: step.verdict for step in found.steps if step.name in (LOWERING, SCHEDULING)}
    assert {v.kind for v in kinds.values()} == {Kind.PROVED}, kinds


class LowWindows(nn.Module):
    """Windows of 60×10 on an input of 4×100: only one side reaches past the input."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, (60, 10), ceil_mode=True)


def test_windows_inside_are_not_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(program, "MAX_ITERATIONS", 5_000)
    found = foldproof.audit(LowWindows(), (torch.randn(1, 1, 4, 100),), locate=False)
    kinds = {step.name: step.verdict for step in found.steps if step.name in (LOWERING, SCHEDULING)}
    assert {v.kind for v in kinds.values()} == {Kind.PROVED}, kinds
