"""Steps that move numbers at the given inputs are told, whatever is proved of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import foldproof
from foldproof import Kind, Verdict
from foldproof.auditing.log import Change
from foldproof.auditing.movement import Movement, measure_movement
from foldproof.auditing.result import Audit
from foldproof.auditing.snapshot import Snapshot
from foldproof.auditing.step import Step

Function = Callable[..., Any]

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
NAN = torch.tensor([1.0, float("nan"), float("inf"), -2.0])


def snapshot(function: Function, x: Tensor) -> Snapshot:
    graph = fx.symbolic_trace(function)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = x
    return Snapshot(graph)


def movement(before: Function, after: Function, x: Tensor) -> Movement | None:
    return measure_movement(Change("a pass", "", snapshot(before, x), snapshot(after, x)), [x])


def written(x: Tensor) -> Tensor:
    x.add_(1)
    return x * 2


def unwritten(x: Tensor) -> Tensor:
    return (x + 1) * 2


def reordered(x: Tensor) -> Tensor:
    return x.flip(1).cumsum(1)[:, -1]


def overlapping(x: Tensor) -> Tensor:
    x[1:].copy_(x[:-1].clone())
    return x


def overlapping_in_place(x: Tensor) -> Tensor:
    x[1:].copy_(x[:-1])
    return x


MOVED: dict[str, tuple[Function, Function, Tensor]] = {
    "a factor": (lambda x: x * 2, lambda x: x * 2.001, X),
    "nan is lost": (lambda x: x * 0, lambda x: torch.zeros_like(x), NAN),
    "infinity becomes another one": (lambda x: x * 1, lambda x: -x, NAN[2:3]),
    "integers": (lambda x: x.argmax(1), lambda x: x.argmin(1), X),
    "booleans": (lambda x: x > 0, lambda x: x > 0.5, X),
    "a write is lost": (written, unwritten, X),
    "half precision": (lambda x: x.bfloat16() * 3, lambda x: x.bfloat16() * 3.5, X),
    "a graph that fails": (overlapping, overlapping_in_place, X),
}
STILL: dict[str, tuple[Function, Function, Tensor]] = {
    "the same": (lambda x: x + x, lambda x: 2 * x, X),
    "nan stays": (lambda x: x * 1, lambda x: x + 0, NAN),
    "another order": (lambda x: x.sum(1), reordered, X),
    "a sum that cancels": (lambda x: (x + 1e6).sum(1) - 6e6, lambda x: (x + 1e6 - 1e6).sum(1), X),
    "half precision": (lambda x: x.bfloat16() / 3, lambda x: x.bfloat16() * (1 / 3), X),
}


@pytest.mark.parametrize("name", MOVED)
def test_movements_beyond_rounding(name: str) -> None:
    found = movement(*MOVED[name])
    assert found is not None and not found.explained, found


@pytest.mark.parametrize("name", STILL)
def test_movements_within_rounding(name: str) -> None:
    found = movement(*STILL[name])
    assert found is not None and found.explained, found


def test_random_numbers_and_graphs_that_fail_are_not_measured() -> None:
    assert movement(lambda x: x + torch.rand_like(x), lambda x: x + 0.5, X) is None
    assert movement(overlapping_in_place, overlapping, X) is None


def test_given_tensors_are_not_written_to() -> None:
    x = X.clone()
    movement(written, unwritten, x)
    assert torch.equal(x, X)


def audited(steps: Sequence[tuple[Function, Function, Kind]], whole: Kind | None, x: Tensor = X) -> Audit:
    """Return an audit with steps of known verdicts, and a comparison with this verdict."""
    made = []
    for i, (before, after, kind) in enumerate(steps):
        step = Step(Change(f"pass_{i}", "", snapshot(before, x), snapshot(after, x)), [x])
        vars(step)["verdict"] = Verdict(kind, "no rule for it")
        made.append(step)
    end = None
    if whole is not None:
        end = foldproof.compare(nn.ReLU(), nn.ReLU(), (X,))
        end = replace(end, verdict=replace(end.verdict, kind=whole))
    return Audit("inductor", {}, made, end, "it", 0.0, 0.0, {}, uncompared="" if end else "there is no runtime")


RIGHT = (lambda x: x + x, lambda x: 2 * x)
WRONG = (lambda x: x * 2, lambda x: x * 2.001)


def test_an_undecided_step_that_moves_numbers_is_the_culprit() -> None:
    found = audited([(*RIGHT, Kind.PROVED), (*WRONG, Kind.UNDECIDED), (*RIGHT, Kind.UNDECIDED)], Kind.REFUTED)
    assert found.conclusion.startswith("wrong: the pass pass_1 changes numbers"), found.conclusion


def test_a_proved_step_is_the_culprit_where_the_numbers_are_wrong() -> None:
    lost = (lambda x: x * 0, lambda x: torch.zeros_like(x), Kind.PROVED)
    found = audited([(*RIGHT, Kind.PROVED), lost], Kind.REFUTED, NAN)
    assert found.conclusion.startswith("wrong: the pass pass_1 changes numbers"), found.conclusion
    assert "proved over the real numbers alone" in found.conclusion


def test_a_proved_step_is_suspect_where_nothing_is_compared() -> None:
    """A compiler that crashed after it, say, or a runtime that is not there."""
    lost = (lambda x: x * 0, lambda x: torch.zeros_like(x), Kind.PROVED)
    found = audited([(*RIGHT, Kind.PROVED), lost], None, NAN)
    assert found.conclusion.startswith("suspect: the pass pass_1 changes numbers"), found.conclusion
    assert "proved over the real numbers alone" in found.conclusion


def test_a_proved_step_is_not_accused_of_rounding() -> None:
    """A variance in one pass rounds otherwise than one in two; the kernel may be what is wrong."""
    found = audited([(*WRONG, Kind.PROVED)], Kind.REFUTED)
    assert found.conclusion.startswith("wrong below the graph: "), found.conclusion


def test_the_step_that_moves_numbers_most_is_named() -> None:
    little = (lambda x: x * 2, lambda x: x * 2.00001, Kind.UNDECIDED)
    found = audited([little, (*WRONG, Kind.UNDECIDED)], Kind.REFUTED)
    assert found.conclusion.startswith("wrong: the pass pass_1 changes numbers"), found.conclusion


@pytest.mark.parametrize("whole", [None, Kind.ROUNDING, Kind.UNDECIDED])
def test_nothing_is_called_fine_while_a_step_is_undecided(whole: Kind | None) -> None:
    found = audited([(*RIGHT, Kind.PROVED), (*RIGHT, Kind.UNDECIDED)], whole)
    assert found.conclusion.startswith("not decided: 1 of 2 graph changes are proved"), found.conclusion
    assert "at the given inputs, the undecided ones change no bit" in found.conclusion
    suspect = audited([(*WRONG, Kind.UNDECIDED)], whole)
    assert suspect.conclusion.startswith("suspect: the pass pass_0 changes numbers"), suspect.conclusion
