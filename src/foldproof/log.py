"""The logger "foldproof", and the exceptions that are caught and not raised again: it has them with their traceback.

To see them: ``logging.getLogger("foldproof").setLevel(logging.DEBUG)``, with a handler that writes records out.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

logger = logging.getLogger("foldproof")


def log_caught(error: BaseException, doing: str) -> None:
    """Log an exception that goes no further, at debug level; ``doing`` says what it ended, as in "running the model".

    What an exception decides must be told besides: a bug in foldproof looks like one in a user's program here.
    """
    logger.debug("caught when %s: %s: %s", doing, type(error).__name__, error, exc_info=error)


@contextlib.contextmanager
def giving_up(doing: str) -> Iterator[None]:
    """End the block at the first exception, which is logged: what it was to give is only useful, not needed."""
    try:
        yield
    except Exception as error:
        log_caught(error, doing)
