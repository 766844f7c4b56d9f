"""Writes docs/commands.md. Run by ``make docs``; by hand: ``python -m docs.make_commands`` (seconds)."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from docs.writing import write_whole
from foldproof.cli import main

PAGE = Path(__file__).with_name("commands.md")

HEAD = """\
# Command line

`make docs` generates this page from the commands; a test fails when it is stale. The commands need the extra `cli`:
[installation](installation.md). [SPECs, other sides of `compare`, files and exit statuses](specs.md) have a page.
"""


def page() -> str:
    """The whole page: the output of ``--help`` for every command."""
    listed = _help()
    return "\n".join([HEAD, f"```text\n{listed}\n```\n", *_parts(listed)])


def _parts(listed: str, *group: str) -> Iterator[str]:
    """Yield a section for each command that a help text lists, and for those of a group after it."""
    for name in re.findall(r"(?m)^  ([\w-]+)", listed.partition("Commands:\n")[2].partition("\n\n")[0]):
        told = _help(*group, name)
        yield f"## {' '.join((*group, name))}\n\n```text\n{told}\n```\n"
        yield from _parts(told, *group, name)


def _help(*command: str) -> str:
    plain = {"COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(io.StringIO()) as out:
        main([*command, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def write() -> None:
    write_whole(PAGE, page())


if __name__ == "__main__":
    write()
