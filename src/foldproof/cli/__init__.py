"""The command line. It imports neither torch nor its own extras until a command runs, so ``--help`` is quick."""

from __future__ import annotations

from collections.abc import Sequence

from foldproof.cli.complaint import complain
from foldproof.errors import MissingExtra


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 fine, 1 REFUTED, 2 wrong usage or input, 3 UNDECIDED."""
    try:
        from foldproof.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        return complain(MissingExtra(error.name, "cli"))
    return run(argv)
