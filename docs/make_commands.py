"""Writes docs/commands.md. Run by ``make docs``; by hand: ``python -m docs.make_commands`` (seconds)."""

from __future__ import annotations

import contextlib
import io
import os
import re
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
    names = re.findall(r"(?m)^│ ([\w-]+)", listed.partition("Commands")[2])
    parts = [HEAD, f"```text\n{listed}\n```\n"]
    parts += [f"## {name}\n\n```text\n{_help(name)}\n```\n" for name in names]
    return "\n".join(parts)


def _help(*command: str) -> str:
    plain = {"COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(io.StringIO()) as out:
        main([*command, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def write() -> None:
    write_whole(PAGE, page())


if __name__ == "__main__":
    write()
