"""A bug of ours that is caught on the way to an answer fails the test, so that it is never a silent UNDECIDED."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import foldproof

OURS = Path(foldproof.__file__).parent


class Swallowed(logging.Handler):
    """Keeps the tracebacks of bugs among the exceptions that foldproof logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.bugs: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            if is_bug(record.exc_info[1]):
                self.bugs.append("".join(traceback.format_exception(record.exc_info[1])))
            record.exc_info = None  # it would keep alive all that its frames hold


def is_bug(error: BaseException) -> bool:
    """True if it began in our code, and is no exception of ours: those are raised on purpose."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames)
        and OURS in Path(frames[-1].filename).parents
        and not type(error).__module__.startswith("foldproof")
    )


@pytest.fixture(autouse=True)
def swallowed(request: pytest.FixtureRequest) -> Iterator[Swallowed]:
    """Fails a test in which a bug was caught, unless it is marked: ``@pytest.mark.swallows("why")``."""
    logger = logging.getLogger("foldproof")
    level, handler = logger.level, Swallowed()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    if handler.bugs and request.node.get_closest_marker("swallows") is None:
        pytest.fail("foldproof caught its own bug:\n" + "\n".join(handler.bugs), pytrace=False)
