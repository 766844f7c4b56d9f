"""Every block of code in the documentation, run page by page."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import pytest

from .pages import SYBIL

DOCS = Path(__file__).parents[2] / "docs"
ELSEWHERE = ("findings", "zoo.md", "self_proof.md")
"""Found bugs, which their own programs show; and results that take an hour, with the code that made them."""
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in DOCS.rglob("*.md")
    if "```python" in page.read_text() and page.relative_to(DOCS).parts[0] not in ELSEWHERE
)


def test_there_are_pages() -> None:
    assert {"proof_from_scratch.md", "tutorials/deployer.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_its_code_runs_and_prints_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    known = set(sys.modules)
    try:
        examples = list(SYBIL.parse(DOCS / page).examples())
        assert examples
        for example in examples:
            example.evaluate()
    finally:
        for name in set(sys.modules) - known:
            if (tmp_path / f"{name}.py").exists():
                del sys.modules[name]
        linecache.checkcache()
