"""docs/operators.md is generated; these tests fail when it is stale."""

from __future__ import annotations

import re

import pytest

from docs import make_operators
from foldproof.shadow import RULES
from foldproof.shadow.registry import COMPLEX

TEXT = make_operators.PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    """Word for word, but for how many calls were checked, which platforms may disagree on a little."""
    blank = re.compile(r"\d+ calls of \d+ operators|\d+ more calls of our own")
    current = make_operators.page(make_operators.counts())
    assert blank.sub("", TEXT) == blank.sub("", current), "run: make docs"


def test_the_counts_are_current() -> None:
    counts = make_operators.counts()
    found = re.search(r"(\d+) calls of (\d+) operators .*? (\d+) more calls of our own", TEXT, re.DOTALL)
    assert found is not None
    for written, name in zip(found.groups(), ("database", "reached", "own")):
        assert int(written) == pytest.approx(counts[name], rel=0.05), f"{name}: run make docs"


def test_every_core_operator_is_accounted_for() -> None:
    core = make_operators.core_operators()
    assert len(core) > 190
    for operator in core:
        assert operator in RULES or operator in COMPLEX or make_operators.why(operator)


def test_no_reason_is_out_of_date() -> None:
    core = {make_operators.short(o): o for o in make_operators.core_operators()}
    for name in make_operators.NO_RULE:
        assert core[name] not in RULES


def test_every_rule_says_what_it_means() -> None:
    for operator, rule in RULES.items():
        assert rule.function.__doc__, operator
    for operator, function in COMPLEX.items():
        assert function.__doc__, operator
