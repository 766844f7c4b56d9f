"""Names of places where processes run."""

from __future__ import annotations

from enum import Enum

from foldproof.processes import Executor, ThisMachine
from foldproof.ray_cluster import RayCluster


class Executors(str, Enum):
    """Names of executors."""

    processes = "processes"
    ray = "ray"


def find_executor(chosen: Executors) -> Executor:
    """Return an executor by its name.

    Raises:
        MissingExtra: Ray is not installed.
        FoldproofError: no Ray cluster can be reached or started.
    """
    return ThisMachine() if chosen is Executors.processes else RayCluster()
