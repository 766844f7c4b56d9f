"""Every public function on every kind of model: a verdict or a sentence, never a traceback, and no contradiction."""

from __future__ import annotations

import re

import pytest

from foldproof import Kind
from foldproof.compiler_catalog import DECLARED

from .functions import COLUMNS, FAULTS, FEW, INDUCTOR, Cell, cell
from .models import MODELS

AUDITS = [function for function in COLUMNS if function.startswith("audit") and function not in INDUCTOR]
PROOFS = [function for function in COLUMNS if function not in (*AUDITS, *INDUCTOR)]
SURE = (Kind.PROVED, Kind.PROVED_WITHIN, Kind.ROUNDING)
"""Verdicts under which nothing is wrong."""


@pytest.mark.parametrize("name", MODELS)
def test_proofs(name: str) -> None:
    for function in PROOFS:
        assert_sound(cell(function, MODELS[name]), name, function)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("function", AUDITS)
def test_audits(function: str, name: str) -> None:
    for package in DECLARED[function.removeprefix("audit, ")].packages:
        pytest.importorskip(package)
    assert_sound(cell(function, MODELS[name]), name, function)


@pytest.mark.xdist_group("inductor")
@pytest.mark.parametrize("name", FEW)
def test_inductor(name: str) -> None:
    for function in INDUCTOR:
        assert_sound(cell(function, MODELS[name]), name, function)


def assert_sound(one: Cell, name: str, function: str) -> None:
    """A cell shows no bug and no wrong verdict. The equality of each pair is known, so no two cells disagree."""
    where = f"{function} of {name}"
    assert not one.failed, f"{where}\n{one.failed}"
    assert one.same is not False, f"{where} gives other numbers than the model"
    assert one.changed not in SURE, f"{where}: {one.changed} of programs that differ"
    assert (one.equal is Kind.REFUTED) == ((name, function) in FAULTS), f"{where}: {one.equal} ({one.note})"
    if one.refused:
        assert_one_sentence(one.refused)


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text and "Traceback" not in text, text
    assert 10 < len(text) < 500, text
    assert not re.match(r"[A-Z]\w*Error\b", text), text
