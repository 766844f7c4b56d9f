"""docs/rules.md is generated."""

from __future__ import annotations

from docs import make_rules


def test_the_page_is_current() -> None:
    assert make_rules.PAGE.read_text(encoding="utf-8") == make_rules.page(), "run: make docs"
