"""Loop nests of one kernel: what one stores, no other may reach in another iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

import foldproof
from foldproof.auditing.loops import SCHEDULING
from foldproof.auditing.loops.memory import Memory, Place
from foldproof.auditing.loops.nest import Nest
from foldproof.auditing.loops.races import find_race
from foldproof.auditing.loops.recorder import Recorder, Unreadable
from foldproof.verdict import Kind


class Mirrored(nn.Module):
    """Two writes in a row, of which the second reads other places."""

    def forward(self, x: Tensor) -> Tensor:
        x.index_put_((torch.arange(x.size(0)),), x * 2.0)
        x.add_(x.flip(0))
        return x * 2


def test_a_fusion_with_a_race_is_refuted() -> None:
    """Inductor of torch 2.13.0 fuses both writes, though the second reads rows that the first writes later."""
    found = foldproof.audit(Mirrored(), (torch.randn(4, 4),), locate=False)
    kinds = {step.name: step.verdict.kind for step in found.steps if step.fired}
    assert kinds[SCHEDULING] is Kind.REFUTED
    assert {kind for name, kind in kinds.items() if name != SCHEDULING} == {Kind.PROVED}
    assert found.end_to_end is not None and found.end_to_end.verdict.kind is Kind.REFUTED


ROW, COLUMN = sympy.symbols("i j", integer=True)


def nests(*made: tuple[Sequence[int], int, Sequence[tuple[str, Any]]]) -> list[Nest]:
    """Nests over one memory of 24 elements: sizes, the number of reduced variables, and accesses with addresses."""
    recorder = Recorder()
    memory = Memory(recorder)
    memory.declare("x", 24, torch.float32)
    held = recorder.hold("values", torch.randn(24))
    memory.write("x", Place((24,), (1,)), held)
    found = []
    for sizes, reduced, accesses in made:
        nest = Nest(recorder, memory, dict(zip((ROW, COLUMN), sizes)), reduced)
        for what, place in accesses:
            if what == "store":
                nest.store("x", place, nest.constant(1.0, torch.float32))
            else:
                nest.load("x", place)
        found.append(nest)
    return found


STORE, LOAD = ((4,), 0, [("store", ROW)]), ((4,), 0, [("load", ROW)])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (STORE, LOAD),
        (LOAD, STORE),
        (((4,), 0, [("load", ROW)]), ((4,), 0, [("load", 3 - ROW)])),  # nothing is written
        (STORE, ((4,), 0, [("load", ROW + 4)])),  # other elements
        (((4, 6), 0, [("store", 6 * ROW + COLUMN)]), ((24,), 0, [("load", ROW)])),
        (((4,), 0, [("store", ROW)]), ((4, 6), 1, [("load", ROW)])),  # each row reads its own mean
        (((4, 6), 1, [("load", 6 * ROW + COLUMN)]), ((4, 6), 1, [("load", 6 * ROW + 5 - COLUMN)])),
    ],
)
def test_no_race(first: Any, second: Any) -> None:
    assert find_race(nests(first, second)) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (STORE, ((4,), 0, [("load", 3 - ROW)])),
        (((4,), 0, [("load", 3 - ROW)]), STORE),
        (STORE, ((4,), 0, [("store", 3 - ROW)])),
        (STORE, ((4,), 0, [("load", ROW), ("load", ROW + 1)])),
        (STORE, ((4, 6), 1, [("load", 3 - ROW)])),
        (STORE, ((4, 6), 1, [("load", sympy.Integer(2))])),
    ],
)
def test_a_race(first: Any, second: Any) -> None:
    assert find_race(nests(first, second)) == "x"


def test_indices_that_are_read_are_not_the_same_by_their_names() -> None:
    recorder = Recorder()
    memory = Memory(recorder)
    memory.declare("x", 4, torch.float32)
    memory.write("x", Place((4,), (1,)), recorder.hold("values", torch.randn(4)))
    found = [Nest(recorder, memory, {ROW: 4}, 0) for _ in range(2)]
    index = [recorder.hold(name, torch.randperm(4)) for name in ("one", "other")]
    places = [nest.indirect_indexing(at, sympy.Integer(4)) for nest, at in zip(found, index)]
    assert places[0] == places[1]
    found[0].store("x", places[0], found[0].constant(1.0, torch.float32))
    found[1].load("x", places[1])
    with pytest.raises(Unreadable, match="at different places"):
        find_race(found)


def test_unknown_iterations_are_not_guessed() -> None:
    with pytest.raises(Unreadable, match="share iterations"):
        find_race(nests(((4,), 0, [("store", ROW)]), ((3,), 0, [("load", 2 - ROW)])))
