"""Operators that choose by comparing: the residue follows the choice that the value made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import branch
from foldproof.shadow.residue import Residue, largest_of
from foldproof.shadow.undecided import Undecided

aten = torch.ops.aten


def _flattened(x: Tensor, dims: list[int]) -> Tensor:
    """Return ``x`` with ``dims`` moved to the end and merged into one."""
    keep = [d for d in range(x.ndim) if d not in dims]
    return x.permute(keep + dims).reshape([x.shape[d] for d in keep] + [math.prod(x.shape[d] for d in dims)])


def extreme(x: Residue, value: Tensor, dims: Sequence[int] | None, keepdim: bool, largest: bool) -> Residue:
    """Return the residue of the largest (smallest) element along ``dims``, found by value."""
    axes = sorted({d % max(value.ndim, 1) for d in dims}) if dims else list(range(value.ndim))
    if value.ndim == 0:
        return x
    flat = _flattened(value, axes)
    if not flat.shape[-1]:
        raise Undecided("there is no element to choose")
    at = flat.argmax(-1, True) if largest else flat.argmin(-1, True)
    shape = [1 if d in axes else s for d, s in enumerate(value.shape) if keepdim or d not in axes]
    return x.map(lambda part: _flattened(part, axes).gather(-1, at).reshape(shape))


MAX_SYMMETRIC = 64
"""Largest number of values whose maximum is read as a symmetric function of them."""


def _symmetric(call: Call, x: Residue, dims: Sequence[int], keepdim: bool) -> Residue | None:
    """Return the largest element along ``dims`` as a symmetric function; None if there are too many elements."""
    axes = sorted({d % x.ndim for d in dims}) if dims and x.ndim else list(range(x.ndim))
    n = math.prod(x.shape[d] for d in axes)
    if not call.algebraic(x) or not 1 < n <= MAX_SYMMETRIC:
        return None
    shape = [1 if d in axes else s for d, s in enumerate(x.shape) if keepdim or d not in axes]
    each = [x.map(lambda part, i=i: _flattened(part, axes)[..., i].reshape(shape)) for i in range(n)]
    return each[0].maximum(each[1]) if n == 2 else largest_of(each)


@branch(aten.amax.default)
def amax(call: Call, x: Tensor, dim: list[int] = [], keepdim: bool = False) -> Residue:  # noqa: B006 (as in the schema)
    """the element that is largest by value"""
    found = _symmetric(call, call.residue(x), dim, keepdim)
    call.follows_values = found is None
    return found or extreme(call.residue(x), call.value(x), dim, keepdim, True)


@branch(aten.amin.default)
def amin(call: Call, x: Tensor, dim: list[int] = [], keepdim: bool = False) -> Residue:  # noqa: B006
    """the element that is smallest by value"""
    found = _symmetric(call, -call.residue(x), dim, keepdim)
    call.follows_values = found is None
    return extreme(call.residue(x), call.value(x), dim, keepdim, False) if found is None else -found


@branch(aten.max.default)
def largest(call: Call, x: Tensor) -> Residue:
    """the element that is largest by value"""
    found = _symmetric(call, call.residue(x), [], False)
    call.follows_values = found is None
    return extreme(call.residue(x), call.value(x), None, False, True) if found is None else found


@branch(aten.min.default)
def smallest(call: Call, x: Tensor) -> Residue:
    """the element that is smallest by value"""
    found = _symmetric(call, -call.residue(x), [], False)
    call.follows_values = found is None
    return extreme(call.residue(x), call.value(x), None, False, False) if found is None else -found


@branch(aten.max.dim)
def largest_and_index(call: Call, x: Tensor, dim: int, keepdim: bool = False) -> tuple[Residue, None]:
    """the element at the index that the value gives"""
    found, _ = at_index(call, x, dim, keepdim)
    return _symmetric(call, call.residue(x), [dim], keepdim) or found, None


@branch(aten.min.dim)
def smallest_and_index(call: Call, x: Tensor, dim: int, keepdim: bool = False) -> tuple[Residue, None]:
    """the element at the index that the value gives"""
    found, _ = at_index(call, x, dim, keepdim)
    least = _symmetric(call, -call.residue(x), [dim], keepdim)
    return found if least is None else -least, None


@branch(aten.median.dim, aten.mode.default, aten.kthvalue.default)
def at_index(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Residue, None]:
    """the element at the index that the value gives"""
    dim, keepdim, indices = call.arguments["dim"], call.arguments["keepdim"], call.result[1]
    if x.ndim == 0:
        return call.residue(x), None
    at = indices if keepdim else indices.unsqueeze(dim)
    found = call.residue(x).map(lambda part: part.gather(dim, at))
    return (found if keepdim else found.map(lambda part: part.squeeze(dim))), None


@branch(aten.sort.default, aten.sort.stable, aten.topk.default)
def ordered(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Residue, None]:
    """the elements in the order that the value gives"""
    if x.ndim == 0:
        return call.residue(x), None
    return call.residue(x).map(lambda part: part.gather(call.arguments["dim"], call.result[1])), None


@branch(aten.aminmax.default)
def aminmax(call: Call, x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Residue, Residue]:
    """the elements that are smallest and largest by value"""
    dims = None if dim is None else [dim]
    low, high = (extreme(call.residue(x), call.value(x), dims, keepdim, largest) for largest in (False, True))
    return low, high


@branch(aten.median.default)
def median(call: Call, x: Tensor) -> Residue:
    """the element that is the median by value"""
    at = (call.value(x).reshape(-1) == call.result).to(torch.int8).argmax()
    return call.residue(x).map(lambda part: part.reshape(-1)[at])


@branch(
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)
def max_pool(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Residue, None]:
    """the element of each window that is largest by value"""
    dims = 2 if "2d" in call.operator.overloadpacket.__name__ else 3
    value, indices = call.result
    at = indices.flatten(-dims)
    return call.residue(x).map(lambda part: part.flatten(-dims).gather(-1, at).view(value.shape)), None


@branch(aten.cummax.default, aten.cummin.default)
def running_extreme(call: Call, x: Tensor, dim: int) -> tuple[Residue, None]:
    """the element that is largest (smallest) so far by value"""
    if x.ndim == 0:
        return call.residue(x), None
    return call.residue(x).map(lambda part: part.gather(dim, call.result[1])), None
