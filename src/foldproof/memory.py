"""Freed memory, returned to the operating system."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


_LARGE = 1 << 26
"""Number of bytes from which on returning memory is worth the time."""


def release(copies: Iterable[Tensor], modules: bool = False) -> None:
    """Return freed memory to the operating system after work on ``copies``, where the C library can (glibc).

    Copies of whole ``modules`` mostly refer to themselves, so that their tensors live until Python collects them.

    Copies of parameters are mostly smaller than the blocks that glibc takes from the system one by one. It keeps them
    after a step of a proof, in pieces that the next step's copies do not fit into.
    """
    if sum(x.nbytes for x in copies) <= _LARGE:
        return
    if modules:
        gc.collect()
    trim = _find_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows has no such library
        return None
    return found
