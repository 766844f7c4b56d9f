"""The running error bound of one operator: the largest distance of results in their own dtype from the exact ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.magnitudes import MAGNITUDES
from foldproof.torch_internals import tree_leaves

HALF = (torch.float16, torch.bfloat16)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Return half the relative spacing of numbers just above 1: 2^-24 for float32."""
    return torch.finfo(dtype).eps / 2


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels accumulate sums of ``dtype``: float32 for half-precision types."""
    return torch.float32 if dtype in HALF else dtype


def bound_errors(
    func: Any, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype
) -> list[Tensor | None]:
    """Return error bounds for the elements of each result in ``out``, ``func``'s float64 results on float64 ``args``.

    ``dtype`` is the dtype of the results in the program itself. A bound is None for a result without rounding, and for
    anything but a float64 tensor. Bounds hold to first order in the unit roundoff, and `foldproof.rounding.magnitudes`
    leaves room for other algorithms than those of PyTorch's own kernels (fused or approximate ones). For an operator
    without an answer, or with the rounding of its parts, the bound is the rounding of the results alone.
    """
    results = tree_leaves(out)
    rounding = find_rounding(func)
    if rounding is Rounding.EXACT:
        return [None] * len(results)
    inside: Any = ()
    if rounding is Rounding.MAGNITUDE:
        inside = MAGNITUDES[func](tuple(results) if len(results) > 1 else results[0], *args, **kwargs)
        inside = inside if isinstance(inside, tuple) else (inside,)
    bounds: list[Tensor | None] = []
    for x, size in zip_longest(results, inside):
        if not isinstance(x, Tensor) or x.dtype != torch.float64:
            bounds.append(None)
            continue
        held = x.to(dtype).to(torch.float64) == x
        own = torch.where(held, 0.0, x.abs() * unit_roundoff(dtype))
        bounds.append(own if size is None else own + size * unit_roundoff(accumulation_dtype(dtype)))
    return bounds
