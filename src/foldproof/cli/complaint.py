"""Error messages for users."""

from __future__ import annotations

import sys

from foldproof.errors import FoldproofError


def complain(error: FoldproofError) -> int:
    """Write the error as one line to stderr, and return the exit status of wrong usage."""
    sys.stderr.write(f"foldproof: {' '.join(str(error).split())}\n")
    return 2
