"""The command line. It imports neither torch nor its own extras until a command runs, so ``--help`` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 fine, 1 REFUTED, 2 wrong usage or input, 3 UNDECIDED."""
    from foldproof.cli import interrupts
    from foldproof.cli.complaint import complain, tell, tell_unwritten

    interrupts.watch()
    try:
        from foldproof.cli.app import run

        status = run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:  # outside of Typer, which makes it a status
        status = INTERRUPTED
    except OSError as error:
        status = tell_unwritten(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("typer", "rich"):
            raise
        from foldproof.errors import MissingExtra

        status = complain(MissingExtra(package, "cli"))
    if interrupts.was_interrupted():
        status = INTERRUPTED
    if status == INTERRUPTED:
        tell("interrupted")
    return status
