"""Calls in processes of their own, several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Died(Exception):
    """The process of a call ended before the call did; ``code`` is its exit code, -n after signal n."""

    def __init__(self, code: int | None) -> None:
        super().__init__(
            f"the process ended with {f'signal {-code}' if code is not None and code < 0 else f'code {code}'}"
        )
        self.code = code


class Processes:
    """Run each call in a new process, at most ``jobs`` at a time; a context that ends with the last call.

    No call sees modules that another has imported, and a crash ends one call. A call that has begun goes on when this
    process is killed.
    """

    def __init__(self, jobs: int) -> None:
        self._lanes = ThreadPoolExecutor(jobs)
        self._running: set[Any] = set()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            self._lanes.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
        self._lanes.shutdown()

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Call a module's function with arguments that can be pickled, as soon as there is room.

        An exception in the function ends its process, so that the future raises `Died`.
        """
        return self._lanes.submit(self._call, function, *args)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
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


def _send(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the other process was interrupted, too, or killed
        sender.send(function(*args))
