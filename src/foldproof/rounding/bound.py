"""The running error bound of one operator: how far its result, computed in its own dtype, may be from the exact one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.operators import is_view
from foldproof.rounding.magnitude import is_cast, is_exact, magnitude

HALF = (torch.float16, torch.bfloat16)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the spacing of numbers just above 1, relatively: 2^-24 for float32."""
    return torch.finfo(dtype).eps / 2


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which kernels add up numbers of ``dtype``: half types are added up in float32."""
    return torch.float32 if dtype in HALF else dtype


def error_bound(
    func: Any, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor | None, bool]:
    """The bound for each element of ``out``, the float64 result of ``func`` on float64 ``args``; and is it known?

    ``dtype`` is that of the result in the program itself. None where nothing is rounded. To first order in the unit
    roundoff; operators that compute in other ways than PyTorch's own kernels (a fused or approximate form) are allowed
    for by the rules of `foldproof.rounding.magnitude`.
    """
    if is_exact(func) or is_view(func):
        return None, True
    if is_cast(func):
        # Creating or converting numbers rounds those that the dtype does not hold.
        representable = out.to(dtype).to(torch.float64) == out
        return torch.where(representable, 0.0, out.abs() * unit_roundoff(dtype)), True
    inside = magnitude(func, out, args, kwargs)
    bound = out.abs() * unit_roundoff(dtype)
    if inside is None:
        return bound, False
    return bound + inside * unit_roundoff(accumulation_dtype(dtype)), True
