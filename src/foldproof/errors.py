"""Errors meant for users: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations


class FoldproofError(Exception):
    """Bad input or a missing piece; the message is one sentence for the user, printed without a traceback."""


class MissingExtra(FoldproofError):
    """An optional dependency is not installed; the message names the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'foldproof[{extra}]'")
