"""Sums, means, variances and products along dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed, exact
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@exact(aten.sum.default, aten.sum.dim_IntList)
def sum_(call: Call, x: Tensor, dim: list[int] | None = None, keepdim: bool = False, **kwargs: Any) -> Residue:
    """the sum, reduced"""
    return call.residue(x).sum(dim, keepdim)


@exact(aten.mean.default, aten.mean.dim)
def mean(call: Call, x: Tensor, dim: list[int] | None = None, keepdim: bool = False, **kwargs: Any) -> Residue:
    """the sum over the number of terms"""
    return call.residue(x).mean(dim, keepdim)


@exact(aten.cumsum.default)
def cumsum(call: Call, x: Tensor, dim: int, **kwargs: Any) -> Residue:
    """running sums, reduced"""
    return call.residue(x).total(lambda part: part.cumsum(dim), x.shape[dim] if x.ndim else 1)


@exact(aten.prod.default)
def prod(call: Call, x: Tensor, **kwargs: Any) -> Residue:
    """factors multiplied one by one"""
    return product(call.residue(x).reshape(-1), 0, False)


@exact(aten.prod.dim_int)
def prod_dim(call: Call, x: Tensor, dim: int, keepdim: bool = False, **kwargs: Any) -> Residue:
    """factors multiplied one by one"""
    residue = call.residue(x)
    return product(residue if x.ndim else residue.reshape(1), dim, keepdim and x.ndim > 0)


def product(x: Residue, dim: int, keepdim: bool) -> Residue:
    """The product along ``dim``, halving it step by step."""
    while x.shape[dim] > 1:
        n = x.shape[dim] // 2
        pairs = x.map(lambda p: p.narrow(dim, 0, n)) * x.map(lambda p: p.narrow(dim, n, n))
        rest = x.map(lambda p: p.narrow(dim, 2 * n, p.shape[dim] - 2 * n))
        x = pairs.map(lambda p, r: torch.cat([p, r], dim), rest)
    if x.shape[dim] == 0:
        shape = [1 if d == dim % x.ndim else s for d, s in enumerate(x.shape)]
        x = x.draw.constant(1).map(lambda p: p.expand(shape))
    return x if keepdim else x.map(lambda p: p.squeeze(dim))


def variance(x: Residue, dims: list[int], correction: float, keepdim: bool) -> tuple[Residue, Residue]:
    """Variance and mean along ``dims``."""
    center = x.mean(dims, True)
    deviation = x - center
    total = (deviation * deviation).sum(dims, keepdim)
    terms = x.numel() // max(center.numel(), 1)
    var = total / x.draw.constant(terms - correction)
    return var, center if keepdim else center.map(lambda p: p.reshape(total.shape))


def _variance(call: Call, x: Tensor, dim: Any, correction: Any, keepdim: bool) -> tuple[Residue, Residue]:
    correction = 1 if correction is None else correction
    residue = call.residue(x)
    dims = list(range(x.ndim)) if not dim else [d % max(x.ndim, 1) for d in dim]
    if x.ndim == 0:
        residue, dims = residue.reshape(1), [0]
    terms = 1
    for d in dims:
        terms *= residue.shape[d]
    if terms <= correction:
        raise call.undecided("the variance of so few elements is nan")
    var, center = variance(residue, dims, correction, keepdim and x.ndim > 0)
    return var, center


@composed(aten.var.correction)
def var(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Residue:
    """the mean of squared deviations from the mean"""
    return _variance(call, x, dim, correction, keepdim)[0]


@composed(aten.var.dim, aten.var.default)
def var_dim(call: Call, x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Residue:
    """the mean of squared deviations from the mean"""
    if not isinstance(dim, (list, tuple)):
        dim, unbiased = None, unbiased if dim is None else dim
    return _variance(call, x, dim, int(unbiased), keepdim)[0]


@composed(aten.std.correction)
def std(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Residue:
    """the square root of the variance"""
    return _variance(call, x, dim, correction, keepdim)[0].sqrt()


@composed(aten.var_mean.correction)
def var_mean(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """variance and mean"""
    return _variance(call, x, dim, correction, keepdim)


@composed(aten.linalg_vector_norm.default)
def vector_norm(
    call: Call, x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Residue:
    """the square root of the sum of squares; other orders have no rule"""
    if ord != 2:
        raise call.undecided(f"no rule for the norm of order {ord}")
    residue = call.residue(x)
    return (residue * residue).sum(dim, keepdim).sqrt()
