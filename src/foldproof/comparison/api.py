"""`compare`: a program against numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foldproof.comparison.result import CompareResult

Progress = Callable[[int, int | None, str], None]


def compare(
    reference: Any,
    candidate: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    trials: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> CompareResult:
    raise NotImplementedError
