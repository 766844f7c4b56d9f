"""Fingerprints of tensors' contents, without numpy, which PyTorch does not require."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of the elements of dense tensors in logical order, as bytes of their dtypes.

    Neither shapes nor dtypes are part of it.

    Raises:
        RuntimeError, TypeError: a tensor has no memory of its own (a sparse one, one on the meta device, a subclass).
    """
    state = hashlib.sha256()
    for tensor in tensors:
        held = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if held.numel() and not held.data_ptr():
            raise RuntimeError(f"a {type(tensor).__name__} on {tensor.device} has no memory to read")
        # A view of the memory itself: `bytes(storage)` would read it byte by byte.
        state.update((ctypes.c_char * (held.numel() * held.element_size())).from_address(held.data_ptr()))
    return state.hexdigest()
