"""Errors meant for users: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations


class FoldproofError(Exception):
    """Bad input or a missing piece; the message is one sentence for the user, printed without a traceback."""


class MissingExtra(FoldproofError):
    """An optional dependency is not installed; the message names the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'foldproof[{extra}]'")


def brief(error: BaseException) -> str:
    """The type and first line of an exception, short enough for one sentence; and what follows a colon at its end.

    A `FoldproofError` needs no type: its message is a sentence.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((i for i, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    line = " ".join(lines[: said + 1])
    if len(line) > 240:
        line = line[:240] + "…"
    if isinstance(error, FoldproofError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
