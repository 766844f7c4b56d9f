"""Errors of the operands of products, where these are rounded before they are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from foldproof.torch_internals import OpOverload

aten = torch.ops.aten

Operands = Callable[[OpOverload, Tensor], Tensor]
"""A function of an operator and one of its float64 operands, which returns the largest error of each element."""

REDUCED = {"bf16": 2.0**-8, "tf32": 2.0**-11}
"""Unit roundoffs of what PyTorch's settings let float32 operands of products be rounded to."""


def rounded_to(roundoff: float) -> Operands:
    """Return the errors of operands that are rounded to a number format with this unit roundoff: 2^-11 for TF32."""
    return lambda func, x: x.abs() * roundoff


def quantized_to(levels: int) -> Operands:
    """Return the errors of operands that are held as integers up to ``levels``: half a step of the whole tensor."""
    return lambda func, x: (x.abs().amax() / (2 * levels)).expand(x.shape) if x.numel() else x


def rounded_as_set(devices: Iterable[str]) -> Operands | None:
    """Return the errors of operands on devices of these types, as PyTorch is set to round them; None for none.

    CUDA has a setting for matrix products and one for convolutions, of which the second allows TF32 unless told
    otherwise.
    """
    set_to = {
        (device, convolves): REDUCED.get(_setting(device, convolves), 0.0)
        for device in devices
        for convolves in (False, True)
    }
    if not any(set_to.values()):
        return None
    return lambda func, x: x.abs() * set_to.get((x.device.type, func is aten.convolution.default), 0.0)


def _setting(device: str, convolves: bool) -> str:
    backends: Any = torch.backends
    if device == "cuda":
        return str((backends.cudnn.conv if convolves else backends.cuda.matmul).fp32_precision)
    return str((backends.mkldnn.conv if convolves else backends.mkldnn.matmul).fp32_precision)
