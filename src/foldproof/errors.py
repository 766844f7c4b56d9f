"""Errors for users: one sentence that names the problem, its place, and the remedy."""

from __future__ import annotations

import re

from foldproof.version import find_requirements


class FoldproofError(Exception):
    """Bad input or a missing piece; the message is one sentence for the user, printed without a traceback."""


class MissingExtra(FoldproofError):
    """An optional dependency is not installed; the message names a pip command that installs the extra's packages.

    It names the packages, not ``foldproof[extra]``: pip looks for that on PyPI, and not in the clone or wheel.
    """

    def __init__(self, package: str, extra: str) -> None:
        wanted = " ".join(f"'{one}'" for one in find_requirements(extra) or [package])
        super().__init__(f"{package} is not installed; run: pip install {wanted} (foldproof's extra {extra})")


class EndlessLoop(FoldproofError):
    """A program with a loop that ends by a value does not end on these inputs."""


def brief(error: BaseException) -> str:
    """Return the type and first sentence of an exception, cut after 140 characters.

    A first line that ends in a colon takes the next one with it. The message of a `FoldproofError` is a sentence, and
    is returned whole and without the type.
    """
    if isinstance(error, FoldproofError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((i for i, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    line = re.split(r"\.\s", " ".join(lines[: said + 1]))[0]
    if len(line) > 140:
        line = line[:140] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
