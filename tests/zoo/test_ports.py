"""Ports that other people wrote: those that need no further package, and the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import foldproof
from foldproof import Kind
from zoo.ports import PORTS

PAGE = Path(__file__).parents[2] / "docs" / "ports.md"
BY_NAME = {port.name: port for port in PORTS}


@pytest.mark.parametrize("name", ["BERT's layers", "GPT-2's attention"])
def test_transformers_in_modules_of_pytorch(name: str) -> None:
    pair = BY_NAME[name].pair()
    verdict = foldproof.prove(pair.reference, pair.port, pair.inputs, convert=pair.convert)
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert verdict.claim is not None and verdict.claim.all_inputs and verdict.claim.all_parameters


def test_the_page_has_a_row_for_each() -> None:
    page = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| [A-Z_]+ \| \d+ \|$", page, re.MULTILINE)
    assert rows == [(port.name, port.reference, port.port, port.conversion) for port in PORTS]
    assert len(PORTS) >= 10
    for port in PORTS:
        assert port.remark in page
