"""Error messages for users, and no warnings of libraries."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

from foldproof.errors import FoldproofError


def complain(error: FoldproofError) -> int:
    """Write the error as one line to stderr, and return the exit status of wrong usage."""
    sys.stderr.write(f"foldproof: {' '.join(str(error).split())}\n")
    return 2


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drop warnings of foldproof, as summaries list the declined folds, and deprecations of libraries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"foldproof\.")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
