"""The page as text; test_browser.py opens it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from foldproof.report import html

from .conftest import COMMANDS

Written = Callable[[str], dict[str, Any]]


class Parsed(HTMLParser):
    """Every element with its attributes, and what has no closing tag."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_well_formed_and_asks_for_nothing(written: Written, name: str) -> None:
    parsed = Parsed(html(written(name)))
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        assert tag not in ("img", "iframe", "object", "embed"), tag
        assert attributes.get("src") is None, attributes
        assert re.match(r"#|data:", attributes.get("href") or "#"), attributes


def test_the_verdict_comes_first(written: Written) -> None:
    text = html(written("fuse"))
    assert "<h1>1 rewrite, nothing declined: the same function over the real numbers</h1>" in text
    assert "<h1>1 operator folded, nothing declined: the same function" in html(written("fold_qat"))
    assert "<h1>wrong: the pass fuse changes the meaning of the model" in html(written("audit"))


def test_rewrites_are_found_by_their_module(written: Written) -> None:
    [row] = [found for _, found in Parsed(html(written("fuse"))).elements if found.get("class") == "row rewrite"]
    assert {"batch_norm", "conv2d", "flatten", "0", "2"} <= set((row["data-text"] or "").split())


def test_an_audit_says_what_was_compared(written: Written) -> None:
    audit = written("audit")
    assert f"<dt>Compared with</dt><dd>{audit['compiled']}, on 24 inputs</dd>" in html(audit)


def test_text_of_others_stays_text(written: Written) -> None:
    evil = "</script><script>alert(1)</script><!--"
    document = written("audit") | {"subject": evil, "conclusion": evil, "compiler": evil}
    for step in document["steps"]:
        step |= {"name": evil, "listing": evil, "reproduction": evil}
        step["graphs"]["before"]["nodes"][0]["name"] = evil
    text = html(document)
    assert evil not in text and "<script>alert" not in text
    scripts = [attributes for tag, attributes in Parsed(text).elements if tag == "script"]
    assert len(scripts) == len([a for tag, a in Parsed(html(written("audit"))).elements if tag == "script"])
