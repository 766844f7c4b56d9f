"""The notebook is valid, runs, and shows what it prints, but for numbers, which are measured."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from docs.make_notebook import code_cells, read, run


def _plain(outputs: list[dict[str, Any]]) -> str:
    text = re.sub(r"-?\d+(\.\d+)?(e[+-]\d+)?", "#", json.dumps(outputs))
    return re.sub(r"(#, )*#(?=\])", "#", text)  # primes: as many as are needed


def test_it_is_valid() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(read())


def test_it_shows_what_it_prints() -> None:
    notebook = read()
    shown = [cell["outputs"] for cell in code_cells(notebook)]
    assert sum(map(bool, shown)) > 3
    for expected, got in zip(shown, run(notebook)):
        assert _plain(got) == _plain(expected), "run: python -m docs.make_notebook"
