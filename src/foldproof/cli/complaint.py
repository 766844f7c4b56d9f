"""Error messages for users, and no warnings of libraries."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from foldproof.errors import FoldproofError


def complain(error: FoldproofError) -> int:
    """Write the error as one line to stderr, and return the exit status of wrong usage."""
    tell(" ".join(str(error).split()))
    return 2


def tell(sentence: str) -> None:
    """Write a sentence to stderr, if anything can be written there."""
    try:
        sys.stderr.write(f"foldproof: {sentence}\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def tell_unwritten(error: OSError) -> int:
    """Tell that stdout could not be written, close it, and return the exit status; raises any other error."""
    if error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT):
        raise error
    _silence(sys.stdout)
    return complain(FoldproofError(f"the output can't be written: {error.strerror}"))


def _silence(stream: TextIO) -> None:
    """Send what a stream still holds to nowhere, so that Python has no error to report when it ends."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drop warnings of foldproof, as summaries list the declined folds, and deprecations of libraries.

    That NumPy is not installed, as torch warns, is no matter: only ``.npy`` files need it, and say so.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        warnings.filterwarnings("ignore", module=r"foldproof\.")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
