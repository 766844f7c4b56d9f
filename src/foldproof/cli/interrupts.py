"""Ctrl-C. Imports and compilers swallow its exception, or turn it into another one; the program ends all the same."""

from __future__ import annotations

import signal
import threading
from typing import Any

_SEEN = threading.Event()


def watch() -> None:
    """Note each Ctrl-C from now on, unless the program that called has a handler of its own."""
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _note)


def _note(number: int, frame: Any) -> None:
    _SEEN.set()
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Return True if Ctrl-C was pressed, whatever became of it."""
    return _SEEN.is_set()


def require_none() -> None:
    """Raise the exception of an earlier Ctrl-C again: what was computed after it may lack a part.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    if _SEEN.is_set():
        raise KeyboardInterrupt
