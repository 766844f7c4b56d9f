"""Every public function on every kind of model: a verdict or a sentence, never a traceback, and no contradiction."""

from __future__ import annotations

import re

import pytest

from docs.make_matrix import PAGE, shown
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
        one = cell(function, MODELS[name])
        assert_sound(one, name, function)
        assert one.refused or shown(one) == written(name, function), "run: python -m docs.make_matrix"


def written(name: str, function: str) -> str:
    """The cell in docs/matrix.md."""
    lines = iter(line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines())
    columns = next(line for line in lines if line[0] == "model" and function in line)
    row = next(line for line in lines if line[0] == name)
    return row[columns.index(function)]


def test_the_page_has_every_model_function_and_fault() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(written(name, function) for function, names in COLUMNS.items() for name in names)
    assert all(f"* {function} of {name}: {reason}\n" in text for (name, function), reason in FAULTS.items())


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("function", AUDITS)
def test_audits(function: str, name: str) -> None:
    for package in DECLARED[function.removeprefix("audit, ")].packages:
        pytest.importorskip(package)
    assert_sound(cell(function, MODELS[name]), name, function)


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
