"""How a user's mistake is told."""

from __future__ import annotations

import sys

from foldproof.errors import FoldproofError


def complain(error: FoldproofError) -> int:
    """Tells the user, in one line on stderr, what is wrong; returns the exit status for that."""
    sys.stderr.write(f"foldproof: {' '.join(str(error).split())}\n")
    return 2
