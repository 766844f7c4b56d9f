"""The logger "foldproof", and logging of exceptions that are caught and not raised again, with their tracebacks.

To see them, call ``logging.getLogger("foldproof").setLevel(logging.DEBUG)``, and add a handler that writes records out.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

logger = logging.getLogger("foldproof")

OTHERS = ("torch", "torchao", "executorch", "onnxscript", "onnx_ir")
"""Packages whose log messages do not concern the user of a verdict."""


def log_caught(error: BaseException, doing: str) -> None:
    """Log an exception that goes no further, at debug level; ``doing`` is the interrupted work, "running the model".

    The result must mention the consequence, because a bug in foldproof looks like one in a user's program here.
    """
    logger.debug("caught when %s: %s: %s", doing, type(error).__name__, error, exc_info=error)


@contextlib.contextmanager
def giving_up(doing: str) -> Iterator[None]:
    """End the block at the first exception, and log it; for results that are useful but not necessary."""
    try:
        yield
    except Exception as error:
        log_caught(error, doing)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Drop this thread's messages below ERROR to loggers of `OTHERS`, without changing anyone's handlers or levels."""
    thread = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        other = record.name.partition(".")[0] in OTHERS
        return record.levelno >= logging.ERROR or not other or record.thread != thread

    named = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] in OTHERS]
    handlers = [h for one in (logging.root, *map(logging.getLogger, named)) for h in one.handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)
