"""Nearest-neighbour resizing in float64, with the choice of elements made in float32, as most programs make it.

The float64 kernels compute coordinates in float64 and sometimes choose other elements: 7 others from 259 to 222 rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import find_aten
from foldproof.torch_internals import OpOverload

NEAREST = frozenset(
    find_aten(
        """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        """
    )
)

_COUNTED = 2**24
"""Largest whole number up to which float32 holds all of them."""


def take_nearest(operator: OpOverload, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the elements of ``x``, (batch, channels, …) in float64, that ``operator`` would choose in float32."""
    out: Tensor = operator(x, *args, **kwargs)
    size = x.shape[2:].numel()
    if x.numel() and size <= _COUNTED:
        places = torch.arange(size, dtype=torch.float32, device=x.device).reshape(1, 1, *x.shape[2:])
        taken = operator(places, *args, **kwargs).long().flatten()
        out.copy_(x.flatten(2)[..., taken].reshape(out.shape))  # keep the kernel's memory layout
    return out
