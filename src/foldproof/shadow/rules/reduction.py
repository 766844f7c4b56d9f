"""Sums, means, variances and products along dimensions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.leaves import embed_constant
from foldproof.shadow.registry import composed, exact
from foldproof.shadow.residue import Residue
from foldproof.shadow.rules.arithmetic import power
from foldproof.shadow.rules.branching import extreme

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


@exact(aten.cumprod.default)
def cumprod(call: Call, x: Tensor, dim: int, **kwargs: Any) -> Residue:
    """factors multiplied one by one"""
    residue = call.residue(x)
    if x.ndim == 0:
        return residue
    factors = [residue.map(lambda part, i=i: part.narrow(dim, i, 1)) for i in range(x.shape[dim])]
    running = list(itertools.accumulate(factors, lambda a, b: a * b))
    return running[0].map(lambda *parts: torch.cat(parts, dim), *running[1:]) if running else residue


@exact(aten.trace.default)
def trace(call: Call, x: Tensor) -> Residue:
    """the sum of the diagonal, reduced"""
    return call.residue(x).map(lambda part: part.diagonal()).sum()


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
    """Return the product along ``dim``, halving it step by step."""
    while x.shape[dim] > 1:
        n = x.shape[dim] // 2
        pairs = x.map(lambda p: p.narrow(dim, 0, n)) * x.map(lambda p: p.narrow(dim, n, n))
        rest = x.map(lambda p: p.narrow(dim, 2 * n, p.shape[dim] - 2 * n))
        x = pairs.map(lambda p, r: torch.cat([p, r], dim), rest)
    if x.shape[dim] == 0:
        shape = [1 if d == dim % x.ndim else s for d, s in enumerate(x.shape)]
        x = embed_constant(x.point, 1).map(lambda p: p.expand(shape))
    return x if keepdim else x.map(lambda p: p.squeeze(dim))


def variance(x: Residue, dims: list[int], correction: float, keepdim: bool) -> tuple[Residue, Residue]:
    """Return variance and mean along ``dims``."""
    center = x.mean(dims, True)
    deviation = x - center
    total = (deviation * deviation).sum(dims, keepdim)
    terms = x.numel() // max(center.numel(), 1)
    var = total / embed_constant(x.point, terms - correction)
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


@composed(aten.std.correction)
def std(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Residue:
    """the square root of the variance"""
    return _variance(call, x, dim, correction, keepdim)[0].sqrt()


@composed(aten.var_mean.correction)
def var_mean(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """variance and mean"""
    return _variance(call, x, dim, correction, keepdim)


@composed(aten.std_mean.correction)
def std_mean(call: Call, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """the square root of the variance, and the mean"""
    var, center = _variance(call, x, dim, correction, keepdim)
    return var.sqrt(), center


def norm(call: Call, x: Residue, value: Tensor, ord: float, dims: list[int] | None, keepdim: bool) -> Residue:
    """Return the norm of order ``ord`` along ``dims``."""
    if ord == 2:
        return (x * x).sum(dims, keepdim).sqrt()
    if ord == 0:
        call.took_branch()
        return embed_constant(call.point, (value != 0).to(torch.float64)).sum(dims, keepdim)
    size = x.absolute()
    if ord == 1:
        return size.sum(dims, keepdim)
    if math.isinf(ord):
        call.took_branch()
        return extreme(size, value.abs(), dims, keepdim, ord > 0)
    total = power(call, size, ord).sum(dims, keepdim)
    return power(call, total, 1 / ord)


@composed(aten._cdist_forward.default)
def cdist(call: Call, a: Tensor, b: Tensor, p: float, compute_mode: int | None) -> Residue:
    """the norm of each difference of two rows"""
    left, right = call.value(a).unsqueeze(-2), call.value(b).unsqueeze(-3)
    difference = call.residue(a).map(lambda x: x.unsqueeze(-2)) - call.residue(b).map(lambda x: x.unsqueeze(-3))
    return norm(call, difference, left - right, p, [-1], False)


@composed(aten._pdist_forward.default)
def pdist(call: Call, x: Tensor, p: float = 2) -> Residue:
    """the norm of the difference of each pair of rows"""
    i, j = torch.triu_indices(x.shape[0], x.shape[0], 1, device=x.device)
    rows, value = call.residue(x), call.value(x)
    return norm(call, rows.map(lambda r: r[i]) - rows.map(lambda r: r[j]), value[i] - value[j], p, [-1], False)


@composed(aten._weight_norm_interface.default)
def weight_norm(call: Call, v: Tensor, g: Tensor, dim: int = 0) -> tuple[Residue, Residue]:
    """v·g over the norm of v along all other dimensions"""
    direction = call.residue(v)
    length = norm(call, direction, call.value(v), 2, [d for d in range(v.ndim) if d != dim % v.ndim], True)
    return direction * (call.residue(g) / length), length.reshape(*call.result[1].shape)
