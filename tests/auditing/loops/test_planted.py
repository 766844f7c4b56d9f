"""Faults planted in the lowering and in the scheduling are refuted, each in its loop."""

from __future__ import annotations

import re

import pytest

from foldproof.verdict import Kind
from tests.auditing.loops.planted import PLANTED, inputs_of
from zoo.lowered import Function, loop_steps


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_refuted_in_its_loop(name: str) -> None:
    case = PLANTED[name]
    with case.patch():
        steps = loop_steps(Function(case.program), inputs_of(case))
    wrong = steps.pop(case.step)
    assert wrong.verdict.kind is Kind.REFUTED
    assert all(step.verdict.kind is Kind.PROVED for step in steps.values())
    assert wrong.loop is not None and case.origin in wrong.loop.origins
    assert wrong.source is not None and wrong.source.startswith("tests/auditing/loops/planted.py:")
    assert f"the loop that computes {wrong.loop.buffer}" in wrong.verdict.notes[-1]


@pytest.mark.parametrize("name", PLANTED)
def test_without_the_fault_the_loops_are_proved(name: str) -> None:
    case = PLANTED[name]
    steps = loop_steps(Function(case.program), inputs_of(case))
    assert {step.verdict.kind for step in steps.values()} == {Kind.PROVED}


def test_a_loop_is_told_as_text() -> None:
    case = PLANTED["a permutation reversed"]
    with case.patch():
        wrong = loop_steps(Function(case.program), inputs_of(case))["lowering"]
    assert wrong.loop is not None
    title, body = wrong.loop.lines
    assert title == "for p0 < 3, p1 < 3, p2 < 3:"
    assert re.fullmatch(r" {4}buf0\[[^]]+\] = exp\(arg0_1\[[^]]+\]\)", body)
