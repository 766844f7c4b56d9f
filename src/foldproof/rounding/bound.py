"""The running error bound of one operator: how far results in their own dtype may be from the exact ones."""

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
    """Half the spacing of numbers just above 1, relatively: 2^-24 for float32."""
    return torch.finfo(dtype).eps / 2


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which kernels add up numbers of ``dtype``: half types are added up in float32."""
    return torch.float32 if dtype in HALF else dtype


def bound_errors(
    func: Any, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype
) -> list[Tensor | None]:
    """Bounds for the elements of each result in ``out``, the float64 results of ``func`` on float64 ``args``.

    ``dtype`` is that of the results in the program itself. None stands for a result in which nothing is rounded, and
    for what is no float64 tensor. To first order in the unit roundoff; operators that compute in other ways than
    PyTorch's own kernels (a fused or approximate form) are allowed for by `foldproof.rounding.magnitudes`. Of operators
    whose answer is not known, or that round as their parts do, the rounding of the results themselves is all that is
    told.
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
