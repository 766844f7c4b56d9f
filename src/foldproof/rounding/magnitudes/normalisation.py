"""Softmax, and normalizations by mean and variance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import drift, magnitude

Results = tuple[Tensor, ...]


@magnitude("_softmax _safe_softmax softmax.int")
def measure_softmax(out: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    """|out|·(2 + |log out|): exp(x − max) rounds its argument, which is log out up to a constant"""
    logs = torch.where(out > 0, out, 1.0).log().abs()
    return out * (2 + logs + math.sqrt((x.shape[dim] if x.ndim else 1) / 3))


@magnitude("_log_softmax log_softmax.int")
def measure_log_softmax(out: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    """|out| + 2: rounding the sum shifts its logarithm by so much, and the shift by the largest is rounded"""
    return torch.where(out.isfinite(), out.abs(), 0.0) + 2 + math.sqrt((x.shape[dim] if x.ndim else 1) / 3)


def _measure_normalised(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, n: float
) -> Tensor:
    """Return the magnitude of (x − μ)·r·γ + β, with r from Σ(x − μ)² or from E[x²] − μ², which cancels.

    The variance then loses E[x²]·(1 + √(n/3)), where E[x²]r² is 1 + (μr)², and r half as much, relative to itself.
    """
    scale = rstd if weight is None else rstd * weight.abs()
    terms = math.sqrt(n / 3)
    relative = 2 + terms + (mean * rstd).square() * (1 + terms)
    size = (x - mean).abs_().mul_(scale).mul_(relative)
    size.add_(x.abs().add_(mean.abs()).mul_(scale))
    return size if bias is None else size.add_(bias.abs())


def _measure_statistics(x: Tensor, dims: list[int], mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ|x|/n for the mean and, for the reciprocal deviation r, r³/2 times the variance's Σx²/n."""
    n = x.numel() / max(mean.numel(), 1)
    of_mean = x.abs().mean(dims, keepdim=True) + drift(mean, n)
    of_variance = x.square().mean(dims, keepdim=True) * (1 + math.sqrt(n / 3))
    return of_mean, 2 * rstd + rstd**3 / 2 * of_variance


@magnitude("native_layer_norm")
def measure_layer_norm(
    out: Results, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Results:
    """|x − μ|r|γ|·(2 + √(n/3) + (1 + √(n/3))(μr)²) + (|x| + |μ|)r|γ| + |β|; Σ|x|/n; r³Σx²/n"""
    dims = list(range(x.ndim - len(shape), x.ndim))
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    rstd = (var + eps).rsqrt()
    statistics = _measure_statistics(x, dims, mean, rstd)
    normalised = _measure_normalised(x, mean, rstd, weight, bias, math.prod(shape))
    return normalised, *(s.reshape(o.shape) for s, o in zip(statistics, out[1:]))


@magnitude("native_group_norm")
def measure_group_norm(
    out: Results,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    eps: float,
) -> Results:
    """as of a layer normalization"""
    grouped = x.reshape(n, groups, c // groups, hw)
    var, mean = torch.var_mean(grouped, (2, 3), correction=0, keepdim=True)
    rstd = (var + eps).rsqrt()
    w, b = (None if t is None else t.reshape(1, groups, c // groups, 1) for t in (weight, bias))
    statistics = _measure_statistics(grouped, [2, 3], mean, rstd)
    normalised = _measure_normalised(grouped, mean, rstd, w, b, c // groups * hw).reshape(x.shape)
    return normalised, *(s.reshape(o.shape) for s, o in zip(statistics, out[1:]))


def _measure_batch_norm(
    out: Results, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, var: Any, eps: float
) -> Results:
    """Use the statistics of the batch if none are given."""
    dims = [d for d in range(x.ndim) if d != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    if mean is not None and var is not None:
        return (_measure_normalised(x, mean.reshape(shape), (var + eps).rsqrt().reshape(shape), w, b, 1.0),)
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    rstd, per = (var + eps).rsqrt(), x.numel() / max(x.shape[1], 1)
    of_mean, of_rstd = _measure_statistics(x, dims, mean, rstd)
    statistics = (of_mean, of_rstd, of_mean, x.square().mean(dims, keepdim=True) + drift(var, per))
    normalised = _measure_normalised(x, mean, rstd, w, b, per)
    return normalised, *(s.reshape(o.shape) for s, o in zip(statistics, out[1:]))


@magnitude("native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional")
def measure_batch_norm(
    out: Results, x: Tensor, w: Any, b: Any, mean: Any, var: Any, training: bool, m: float, eps: float
) -> Results:
    """as of a layer normalization, with n = 1 where the statistics are given"""
    return _measure_batch_norm(out, x, w, b, None if training else mean, None if training else var, eps)


@magnitude("_native_batch_norm_legit_no_training")
def measure_batch_norm_in_evaluation(
    out: Results, x: Tensor, w: Any, b: Any, mean: Tensor, var: Tensor, m: float, eps: float
) -> Results:
    """as of a layer normalization, with n = 1"""
    return _measure_batch_norm(out, x, w, b, mean, var, eps)


@magnitude("_native_batch_norm_legit.no_stats")
def measure_batch_norm_without_statistics(
    out: Results, x: Tensor, w: Any, b: Any, training: bool, m: float, eps: float
) -> Results:
    """as of a layer normalization"""
    return _measure_batch_norm(out, x, w, b, None, None, eps)
