"""Verdicts of assertions, told to whoever listens: the pytest plugin writes them into its report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from foldproof.verdict import Verdict

Listener = Callable[[str, Verdict], None]
"""Called with the name of an assertion, and its verdict."""

_LISTENERS: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener`` for each assertion that is made inside."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def record(assertion: str, verdict: Verdict) -> Verdict:
    """Tell the verdict of an assertion, and return it."""
    for listener in _LISTENERS:
        listener(assertion, verdict)
    return verdict
