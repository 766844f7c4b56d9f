"""Calls in processes of their own, several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Opens = Callable[..., AbstractContextManager[T]]


class Died(Exception):
    """The process of a call ended before the call did.

    Attributes:
        code: its exit code, -n after signal n; None if that is not known.
    """

    def __init__(self, code: int | None) -> None:
        how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        super().__init__("the process ended" if code is None else f"the process ended with {how}")
        self.code = code


class Executor(Protocol):
    """A place where calls run."""

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a module's function with arguments that can be pickled, and wait for its result.

        Raises:
            Died: its process ended before it did.
        """

    def lend(self, make: Opens[T], *args: Any) -> Callable[[], AbstractContextManager[T]]:
        """Return a function by which calls open the object that ``make`` makes, which stays on this machine."""

    def stop(self) -> None:
        """End all calls that run."""


class Processes:
    """Run each call in a new process of an executor, at most ``jobs`` at a time; a context that ends with them.

    No call sees modules that another has imported, and a crash ends one call.
    """

    def __init__(self, jobs: int, executor: Executor) -> None:
        self.executor = executor
        self._lanes = ThreadPoolExecutor(jobs)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            self._lanes.shutdown(wait=False, cancel_futures=True)
            self.executor.stop()
        self._lanes.shutdown()

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Make a call as soon as there is room; the future raises `Died` for an exception in the function, too."""
        return self._lanes.submit(self.executor.call, function, *args)


class ThisMachine:
    """Processes of this machine. A call that has begun goes on when the process that made it is killed."""

    def __init__(self) -> None:
        self._running: set[Any] = set()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        # A forked process would share torch's threads and whatever models have imported.
        spawned = multiprocessing.get_context("spawn")
        receiver, sender = spawned.Pipe(duplex=False)
        process = spawned.Process(target=_send, args=(sender, function, args))
        process.start()
        self._running.add(process)
        sender.close()
        try:
            result: T = receiver.recv()
        except EOFError:
            process.join()
            raise Died(process.exitcode) from None
        finally:
            process.join()
            self._running.discard(process)
            receiver.close()
        return result

    def lend(self, make: Opens[T], *args: Any) -> Callable[[], AbstractContextManager[T]]:
        return partial(make, *args)  # each process makes its own

    def stop(self) -> None:
        for process in list(self._running):
            process.terminate()


def _send(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the other process was interrupted, too, or killed
        sender.send(function(*args))
