"""A progress bar on stderr, on a terminal only; it disappears at the end."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Bar:
    """A bar, called with (done, total, description); ``total`` is None while it is unknown."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr)  # this stream, even if stderr is redirected later
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=what)
