"""Reads of chosen indices that no operator shows.

Kernels of some composite operators, such as ``tensor_split``, read the memory of an index. So do methods such as
``tolist``. A mode for operators sees nothing of it, but a mode for functions sees the calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from foldproof.shadow.sample import Choices, SamplePoint


def watch_chosen(point: SamplePoint) -> contextlib.AbstractContextManager[Any]:
    """Record a choice by value for each function of PyTorch that takes chosen indices, if the sample point asks."""
    return _Watch(point) if point.semantics.choices is Choices.UNREAD else contextlib.nullcontext()


class _Watch(TorchFunctionMode):
    def __init__(self, point: SamplePoint) -> None:
        super().__init__()
        self._point = point

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._point.note_chosen((args, kwargs))
        return func(*args, **(kwargs or {}))
