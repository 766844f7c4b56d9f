"""The commit that a page is made from."""

from __future__ import annotations

import subprocess


def name_commit() -> str:
    """The commit of the sources, marked where they are changed."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
