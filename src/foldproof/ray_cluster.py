"""Calls as tasks of a Ray cluster, each in a worker process of its own that ends with the call.

Ray takes the cluster of ``RAY_ADDRESS``, or one that runs on this machine; where there is none, it starts one here.
Files are not sent: all machines of a cluster must see the current folder under the same path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from foldproof.errors import FoldproofError, MissingExtra, brief
from foldproof.processes import Died, Opens

T = TypeVar("T")


class RayCluster:
    """Tasks of Ray; those that run when this process is killed end with it."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send nothing to Ray's makers
        try:
            import ray
        except ModuleNotFoundError:
            raise MissingExtra("ray", "ray") from None
        self._ray: Any = ray  # its types know functions of fixed arguments
        if not ray.is_initialized():
            try:
                ray.init(log_to_driver=False, configure_logging=False)
            except Exception as error:
                raise FoldproofError(f"Ray can't reach or start a cluster ({brief(error)})") from error

    def call(self, function: Callable[..., T], *args: Any) -> T:
        # A worker that ends after one call has imported nothing for another one; a crash is a result.
        task = self._ray.remote(max_calls=1, max_retries=0, num_cpus=1)(_call_in)
        try:
            result: T = self._ray.get(task.remote(str(Path.cwd()), function, args))
        except self._ray.exceptions.RayError as error:  # the function's own exceptions are of this class, too
            raise Died(None) from error
        return result

    def lend(self, make: Opens[T], *args: Any) -> Callable[[], AbstractContextManager[T]]:
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        keeper = self._ray.remote(num_cpus=0, scheduling_strategy=here)(_Keeper)
        return partial(Lent, keeper.remote(str(Path.cwd()), make, args))

    def stop(self) -> None:
        self._ray.shutdown()


def _call_in(folder: str, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    os.chdir(folder)
    return function(*args)


class _Keeper:
    """The actor with an object; it makes one call of a method after another."""

    def __init__(self, folder: str, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
        os.chdir(folder)
        self._object = make(*args)

    def call(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return getattr(self._object, name)(*args, **options)


class Lent:
    """An object of the machine that made the calls, in one of them: its methods are called there."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing: other calls use the object, too."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def method(*args: Any, **options: Any) -> Any:
            import ray

            return ray.get(self._keeper.call.remote(name, args, options))

        return method
