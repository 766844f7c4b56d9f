"""All computed pages are made by one command, which goes on where it was stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from docs import make_all


def test_no_page_is_forgotten() -> None:
    modules = {path.stem for path in Path(make_all.__file__).parent.glob("make_*.py")} - {"make_all"}
    assert {one.module for one in make_all.PAGES} == modules


def test_the_page_is_fresh() -> None:
    assert make_all.PAGE.read_text("utf-8") == make_all.page(make_all.read_rows())


def test_what_was_made_at_this_commit_is_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_all, "PAGE", tmp_path / "made.md")
    monkeypatch.setattr(make_all, "name_commit", lambda: commit)
    ran: list[str] = []
    broken = {"docs.make_rules"}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command[2])
        return subprocess.CompletedProcess(command, int(command[2] in broken))

    monkeypatch.setattr(subprocess, "run", run)
    commit = "1111111"
    assert make_all.main("rules", "schema") == 1
    assert ran == ["docs.make_schema", "docs.make_rules"]
    broken.clear()
    ran.clear()
    assert make_all.main("rules", "schema") == 0
    assert ran == ["docs.make_rules"]
    assert make_all.read_rows() == {"schema.md": (commit, "0"), "rules.md": (commit, "0")}
    ran.clear()
    commit = "2222222"
    assert make_all.main("schema") == 0
    assert ran == ["docs.make_schema"]
