"""Resizing to the nearest element, in float64: which one is taken hangs on coordinates, in float32 as a rule.

The float64 kernels compute them in float64, and take others now and then: from 259 to 222 rows, 7 others.
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
"""Float32 holds whole numbers up to this one."""


def take_nearest(operator: OpOverload, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """What ``operator`` takes of ``x``, (batch, channels, …) in float64, if it were float32."""
    out: Tensor = operator(x, *args, **kwargs)
    size = x.shape[2:].numel()
    if x.numel() and size <= _COUNTED:
        places = torch.arange(size, dtype=torch.float32, device=x.device).reshape(1, 1, *x.shape[2:])
        taken = operator(places, *args, **kwargs).long().flatten()
        out.copy_(x.flatten(2)[..., taken].reshape(out.shape))  # laid out in memory as the kernel does it
    return out
