"""Sums, extremes, and running sums along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, whole_numbers


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((d % x.dim() for d in dims), reverse=True):
        x = torch.prod(x, dim, keep)
    return x


REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, dims, keep: x.abs().sum(dims, keep),
    "ReduceL2": lambda x, dims, keep: (x * x).sum(dims, keep).sqrt(),
    "ReduceLogSum": lambda x, dims, keep: x.sum(dims, keep).log(),
    "ReduceLogSumExp": lambda x, dims, keep: torch.logsumexp(x, dims, keep),
    "ReduceMax": lambda x, dims, keep: x.amax(dims, keep),
    "ReduceMean": lambda x, dims, keep: x.mean(dims, keep),
    "ReduceMin": lambda x, dims, keep: x.amin(dims, keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, dims, keep: x.sum(dims, keep),
    "ReduceSumSquare": lambda x, dims, keep: (x * x).sum(dims, keep),
}


_NOTHING_OF_ONE = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"}
"""Reductions of single elements that change nothing."""


def _named(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def reduced(
        x: Tensor, given: Numbers | None = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        dims = whole_numbers(given if given is not None else axes)
        if not dims and noop_with_empty_axes:
            if name not in _NOTHING_OF_ONE:
                raise NotTranslated(f"{name} over no axes has no definition")
            return x.clone()
        if name in ("ReduceMax", "ReduceMin") and not x.numel():
            raise NotTranslated(f"{name} of nothing has no definition")
        made = function(x, dims or [*range(x.dim())], bool(keepdims))
        return made.to(x.dtype)  # PyTorch adds up integers in int64

    reduced.__name__ = reduced.__qualname__ = name.lower()
    return reduced


for _name, _function in REDUCTIONS.items():
    defines(_name)(_named(_name, _function))


@defines("ArgMax")
def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - x.flip(axis).argmax(axis, bool(keepdims))
    return x.argmax(axis, bool(keepdims))


@defines("ArgMin")
def argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - x.flip(axis).argmin(axis, bool(keepdims))
    return x.argmin(axis, bool(keepdims))


@defines("CumSum")
def cumsum(x: Tensor, axis: Numbers, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = whole_numbers(axis)[0]
    x = x.flip(dim) if reverse else x
    total = torch.cumsum(x, dim, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(dim) if reverse else total


@defines("CumProd")
def cumprod(x: Tensor, axis: Numbers, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = whole_numbers(axis)[0]
    x = x.flip(dim) if reverse else x
    total = torch.cumprod(x, dim, dtype=x.dtype)
    if exclusive:
        one = torch.ones_like(total.narrow(dim, 0, 1))
        total = torch.cat([one, total.narrow(dim, 0, total.shape[dim] - 1)], dim)
    return total.flip(dim) if reverse else total


@defines("TopK", several=True)
def topk(x: Tensor, k: Numbers, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, ...]:
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)  # of equal elements, the first
    count = whole_numbers(k)[0]
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)
