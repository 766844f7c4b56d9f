"""The commit that a page is made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "zoo", "tests", "benchmarks", "examples", "docs/*.py")
"""The files that pages are made from, without the pages themselves."""


def name_commit() -> str:
    """The commit of the sources, marked where they are changed."""
    told = _git("rev-parse", "--short", "HEAD")
    changed = _git("diff", "--quiet", "HEAD", "--", *SOURCES).returncode
    return told.stdout.strip() + "-dirty" * bool(changed) if told.returncode == 0 else "unknown"


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
