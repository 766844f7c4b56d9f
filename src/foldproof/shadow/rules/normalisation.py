"""Normalisations, composed of sums, products and rsqrt."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.extremes import read_largest
from foldproof.shadow.registry import RuleKind, composed, rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.rules.branching import extreme
from foldproof.shadow.rules.reduction import variance
from foldproof.shadow.sample import Choices

aten = torch.ops.aten


def _affine(x: Residue, mean: Residue, rstd: Residue, weight: Residue | None, bias: Residue | None) -> Residue:
    """Return (x - mean)·rstd·weight + bias, for statistics and weights that broadcast against x."""
    scale = rstd if weight is None else rstd * weight
    shift = -(mean * scale)
    return x.affine(scale, shift if bias is None else shift + bias)


def _optional(call: Call, x: Tensor | None) -> Residue | None:
    return None if x is None else call.residue(x)


@composed(aten._native_batch_norm_legit_no_training.default)
def batch_norm_eval(
    call: Call, x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Residue, None, None]:
    """(x - mean)·rsqrt(var + eps)·weight + bias along dimension 1"""
    rstd = (call.residue(var) + call.residue(eps)).rsqrt()
    along = [None if r is None else r.channels(x.ndim) for r in (_optional(call, weight), _optional(call, bias))]
    center, spread = call.residue(mean).channels(x.ndim), rstd.channels(x.ndim)
    return _affine(call.residue(x), center, spread, along[0], along[1]), None, None


@composed(aten._native_batch_norm_legit_functional.default)
def batch_norm_functional(
    call: Call, x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Residue | None, ...]:
    """(x - mean)·rsqrt(var + eps)·weight + bias along dimension 1, with running or batch statistics"""
    old = call.residue(mean), call.residue(var)
    if not training:
        return *batch_norm_eval(call, x, weight, bias, mean, var, momentum, eps), *old
    y, center, rstd, batch_var, n = _batch_statistics(call, x, weight, bias, eps)
    unbiased = batch_var * call.residue(n) / call.residue(n - 1)
    new = call.residue(momentum)
    keep = call.residue(1) - new
    return y, center, rstd, old[0] * keep + center * new, old[1] * keep + unbiased * new


@composed(aten._native_batch_norm_legit.no_stats)
def batch_norm_no_stats(
    call: Call, x: Tensor, weight: Any, bias: Any, training: bool, momentum: float, eps: float
) -> tuple[Residue, Residue, Residue]:
    """(x - mean)·rsqrt(var + eps)·weight + bias along dimension 1, with batch statistics"""
    y, center, rstd, _, _ = _batch_statistics(call, x, weight, bias, eps)
    return y, center, rstd


@rule(RuleKind.COMPOSED, aten.native_batch_norm.default, aten._native_batch_norm_legit.default, rewrites=True)
def batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    """(x - mean)·rsqrt(var + eps)·weight + bias along dimension 1; training writes the running statistics"""
    if mean is None:
        return aten._native_batch_norm_legit.no_stats(x, weight, bias, training, momentum, eps)
    if not training:
        return aten._native_batch_norm_legit_no_training.default(x, weight, bias, mean, var, momentum, eps)
    *results, new_mean, new_var = aten._native_batch_norm_legit_functional.default(
        x, weight, bias, mean, var, training, momentum, eps
    )
    mean.copy_(new_mean)
    var.copy_(new_var)
    return tuple(results)


def _batch_statistics(call: Call, x: Tensor, weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    residue = call.residue(x)
    dims = [d for d in range(x.ndim) if d != 1]
    if x.numel() == 0:
        raise call.undecided("batch statistics of an empty batch")
    var, center = variance(residue, dims, 0, True)
    rstd = (var + call.residue(eps)).rsqrt()
    along = [None if r is None else r.channels(x.ndim) for r in (_optional(call, weight), _optional(call, bias))]
    y = _affine(residue, center, rstd, along[0], along[1])
    return y, center.reshape(-1), rstd.reshape(-1), var.reshape(-1), x.numel() // x.shape[1]


@composed(aten.native_layer_norm.default)
def layer_norm(
    call: Call, x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float
) -> tuple[Residue, Residue, Residue]:
    """(x - mean)·rsqrt(var + eps)·weight + bias over the last dimensions"""
    residue = call.residue(x)
    dims = list(range(x.ndim - len(shape), x.ndim))
    var, center = variance(residue, dims, 0, True)
    rstd = (var + call.residue(eps)).rsqrt()
    normal = _affine(residue, center, rstd, None, None)
    if weight is not None and bias is not None:
        normal = normal.affine(call.residue(weight), call.residue(bias))
    elif weight is not None:
        normal = normal * call.residue(weight)
    elif bias is not None:
        normal = normal + call.residue(bias)
    return normal, center, rstd


@composed(aten.native_group_norm.default)
def group_norm(
    call: Call, x: Tensor, weight: Any, bias: Any, n: int, c: int, hxw: int, groups: int, eps: float
) -> tuple[Residue, Residue, Residue]:
    """(x - mean)·rsqrt(var + eps)·weight + bias over groups of channels"""
    grouped = call.residue(x).reshape(n, groups, c // groups * hxw)
    var, center = variance(grouped, [2], 0, True)
    rstd = (var + call.residue(eps)).rsqrt()
    normal = ((grouped - center) * rstd).reshape(*x.shape)
    if weight is not None:
        normal = normal * call.residue(weight).channels(x.ndim)
    if bias is not None:
        normal = normal + call.residue(bias).channels(x.ndim)
    return normal, center.reshape(n, groups), rstd.reshape(n, groups)


def exp_shifted(
    call: Call, x: Residue, value: Tensor, dims: list[int], empty_rows: bool = False
) -> tuple[Residue, Residue]:
    """Return exp(x - m) and m, for one m along ``dims``; the sample point selects it.

    The choice of m is no branch: softmax is the same function for any m. Programs that write a softmax by themselves
    subtract the largest element. In readings without choices it is the same function of all elements; in others, it is
    one by value, and the first unmasked element is the same in programs that round differently.
    Where the value is -inf (a mask) the result is 0; ``empty_rows`` allows rows that are masked throughout.
    """
    if call.algebraic(x):
        shift = extreme(x, value, dims, True, True) * call.residue(0)
        return call.uninterpreted([x], real=torch.exp, name="exp"), shift
    call.point.shifted = True
    least = _masked_with_the_least(call, value, dims)
    order = ((value != -math.inf) & ~least).to(torch.int8) if call.point.semantics.shift_first else value
    whole = call.point.semantics.choices is not Choices.BY_VALUE
    largest = read_largest(x, value, dims) if whole and not bool(least.any()) else None
    shift = extreme(x, order, dims, True, True) if largest is None else largest
    e = call.uninterpreted([x - shift], real=torch.exp, name="exp")
    if x.infinite:
        top = value.amax(dims, True)
        if bool((top == math.inf).any()) or (not empty_rows and bool((top == -math.inf).any())):
            raise call.undecided("infinities make a nan")
    masked = least | (value == -math.inf) if x.infinite else least
    if bool(masked.any()):
        e = e.map(lambda part: torch.where(masked, 0.0, part)).knowing_also(nonnegative=True, masked=True)
    return e, shift


def _masked_with_the_least(call: Call, value: Tensor, dims: list[int]) -> Tensor:
    """Return the elements that are masked with the least number of their dtype, where constants are read as others.

    Beside an ordinary number it is as good as -inf, since its exponential is 0.
    """
    if call.point.constants is None or not value.is_floating_point():
        return torch.zeros_like(value, dtype=torch.bool)
    low = 0.9 * torch.finfo(value.dtype).min
    least = (value < low) & (value != -math.inf) & (value.amax(dims, True) > low / 2)
    if bool(least.any()):
        what = f"masking with the least {str(value.dtype)[6:]} is read as masking with -inf"
        call.point.constants.changes[what] = 0.0
    return least


def softmax_of(call: Call, x: Residue, value: Tensor, dim: int, empty_rows: bool = False) -> Residue:
    e, _ = exp_shifted(call, x, value, [dim], empty_rows)
    return (e / e.sum([dim], True)).sure_if(x.sure)


@composed(aten._softmax.default)
def softmax(call: Call, x: Tensor, dim: int, half_to_float: bool) -> Residue:
    """exp(x - m)/sum(exp(x - m)) for one element m, with uninterpreted exp and reciprocal"""
    if x.ndim == 0:
        return call.residue(1).map(lambda part: part.clone())
    return softmax_of(call, call.residue(x), call.value(x), dim)


@composed(aten._safe_softmax.default)
def safe_softmax(call: Call, x: Tensor, dim: int, dtype: Any = None) -> Residue:
    """softmax, but 0 in rows that are masked throughout"""
    out = softmax_of(call, call.residue(x), call.value(x), dim, empty_rows=True)
    if not call.residue(x).infinite:
        return out
    empty = call.value(x).amax(dim, True) == -math.inf
    return out.map(lambda part: torch.where(empty, 0.0, part))


@composed(aten._log_softmax.default)
def log_softmax(call: Call, x: Tensor, dim: int, half_to_float: bool) -> Residue:
    """x - m - log(sum(exp(x - m))) for one element m, with uninterpreted exp and log"""
    residue, value = call.residue(x), call.value(x)
    if x.ndim == 0:
        return call.residue(0).map(lambda part: part.clone())
    e, shift = exp_shifted(call, residue, value, [dim])
    return residue - shift - call.uninterpreted([e.sum([dim], True)], real=torch.log, name="log")


@composed(aten.logsumexp.default)
def logsumexp(call: Call, x: Tensor, dim: list[int], keepdim: bool = False) -> Residue:
    """m + log(sum(exp(x - m))) for one element m, with uninterpreted exp and log"""
    e, shift = exp_shifted(call, call.residue(x), call.value(x), dim)
    out = shift + call.uninterpreted([e.sum(dim, True)], real=torch.log, name="log")
    return out if out.shape == call.result.shape else out.reshape(*call.result.shape)
