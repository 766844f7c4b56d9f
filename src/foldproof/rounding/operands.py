"""Errors of the operands of products, where these are rounded before they are multiplied."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Operands = Callable[[Tensor], Tensor]
"""A function of a float64 operand that returns the largest error of its elements."""


def rounded_to(roundoff: float) -> Operands:
    """Return the errors of operands that are rounded to a number format with this unit roundoff: 2^-11 for TF32."""
    return lambda x: x.abs() * roundoff


def quantized_to(levels: int) -> Operands:
    """Return the errors of operands that are held as integers up to ``levels``: half a step of the whole tensor."""
    return lambda x: (x.abs().amax() / (2 * levels)).expand(x.shape) if x.numel() else x
