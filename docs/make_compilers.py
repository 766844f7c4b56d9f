"""Writes the table of compilers. Run by ``make docs``; by hand: ``python -m docs.make_compilers``."""

from __future__ import annotations

import re
from pathlib import Path

from docs.writing import write_whole
from foldproof.compiler_catalog import DECLARED, Declaration

PAGE = Path(__file__).with_name("howto") / "audit.md"
HEAD = "| `--compiler` | watches | options |\n|---|---|---|\n"


def table() -> str:
    """A row for each declared compiler."""
    rows = ((f"`{one.name}`", one.watches, _options(one)) for one in DECLARED.values())
    return HEAD + "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in row) + "\n" for row in rows)


def _options(one: Declaration) -> str:
    return "; ".join(told if name == "…" else f"`{name}`: {told}" for name, told in one.options.items())


def page() -> str:
    """The page with the current table."""
    return re.sub(re.escape(HEAD) + r"(?:\|.*\n)*", lambda _: table(), PAGE.read_text(encoding="utf-8"))


def write() -> None:
    write_whole(PAGE, page())


if __name__ == "__main__":
    write()
