"""The running error bound of one operator: the largest distance of results in their own dtype from the exact ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.complex import bound_complex, involves_complex, is_rounded_once
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
    return [None if x is None else bound_error(x, size, dtype) for x, size in rounded_results(func, out, args, kwargs)]


def rounded_results(
    func: Any, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[Tensor | None, Tensor | None]]:
    """Return each result in ``out`` with its magnitude, for `bound_error`; None stands for a result without rounding.

    A result that is rounded once has no magnitude.
    """
    results = tree_leaves(out)
    rounding = find_rounding(func)
    if is_rounded_once(func) and involves_complex(results, args):
        rounding = Rounding.RESULT
    if rounding is Rounding.EXACT:
        return [(None, None)] * len(results)
    inside: Any = ()
    if rounding is Rounding.MAGNITUDE:
        inside = MAGNITUDES[func](tuple(results) if len(results) > 1 else results[0], *args, **kwargs)
        inside = inside if isinstance(inside, tuple) else (inside,)
    return [
        (x, size) if isinstance(x, Tensor) and x.dtype in (torch.float64, torch.complex128) else (None, None)
        for x, size in zip_longest(results, inside)
    ]


def bound_error(x: Tensor, size: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the error bounds of the elements of a result, or of a part of it, from those of its magnitude.

    That of a complex element holds for each of its parts.
    """
    if x.is_complex():
        return bound_complex(x, size, unit_roundoff(dtype), unit_roundoff(accumulation_dtype(dtype)), dtype)
    own = x.abs()
    flushed = own < torch.finfo(dtype).tiny  # runtimes may take subnormal numbers for 0
    held = x.to(dtype).to(torch.float64) == x
    own.mul_(unit_roundoff(dtype)).masked_fill_(held, 0.0)
    if flushed.any():
        own = torch.where(flushed, x.abs(), own)
    return own if size is None else own.add_(size, alpha=unit_roundoff(accumulation_dtype(dtype)))
