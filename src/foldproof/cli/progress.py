"""Progress on stderr: a bar on a terminal, which disappears at the end; elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 10.0
"""Seconds between two lines."""
FIRST = "loading torch"


class Bar:
    """Progress, called with (done, total, description); ``total`` is None while it is unknown."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr)  # this stream, even if stderr is redirected later
        self._shown = _Drawn(console) if console.is_terminal else _Lines(sys.stderr)

    def __enter__(self) -> Bar:
        self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._shown.stop()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        self._shown.update(done, total, what)


class _Drawn:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(FIRST, total=None)
        self.start, self.stop = self._progress.start, self._progress.stop

    def update(self, done: int, total: int | None, what: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=what)


class _Lines:
    """Lines from a thread, so that one also comes while nothing is reported."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun, self._told = stream, time.monotonic(), FIRST
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def update(self, done: int, total: int | None, what: str) -> None:
        self._told = what if total is None else f"{what} ({done} of {total})"

    def _write(self) -> None:
        while not self._ended.wait(EVERY):
            self._stream.write(f"foldproof: {self._told}, {time.monotonic() - self._begun:.0f} s\n")
            self._stream.flush()
