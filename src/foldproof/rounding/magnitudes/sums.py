"""Sums and means, with or without weights, and functions of them: variances, norms, products."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import (
    MAGNITUDES,
    SUBNORMAL,
    Magnitude,
    absolute,
    drift,
    find_aten,
    magnitude,
)

aten = torch.ops.aten


def _measure_sum(operator: Any) -> Magnitude:
    """Return the magnitude of sums with weights that are no operands: the operator itself, on magnitudes."""

    def measure(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Σ|x||w|, with weights that are no operands"""
        made = operator(x.abs(), *map(absolute, args), **kwargs)
        inside, first = (made[0], out[0]) if isinstance(made, tuple) else (made, out)
        return inside.abs() + drift(first, x.numel() / max(first.numel(), 1))  # type: ignore[no-any-return]

    return measure


for _operator in find_aten(
    """
    sum sum.dim_IntList mean mean.dim nansum trace
    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d im2col col2im
    avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward
    max_pool2d_with_indices_backward max_pool3d_with_indices_backward
    adaptive_max_pool2d_backward adaptive_max_pool3d_backward
    reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
    replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
    upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward
    _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward _upsample_nearest_exact3d_backward
    embedding_dense_backward unfold_backward
    _embedding_bag _embedding_bag_forward_only _embedding_bag_per_sample_weights_backward
    """
):
    MAGNITUDES[_operator] = _measure_sum(_operator)


@magnitude("_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_3d")
def measure_sampling(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """max|x|·(2 + 2·size): weights hang on coordinates, which are as large as the image and rounded"""
    size: int = max(*x.shape[2:], *out.shape[2:])
    return (x.abs().amax(list(range(2, x.ndim)), True) * (2 + 2 * size)).expand(out.shape)


@magnitude("cumsum")
def measure_cumsum(out: Tensor, x: Tensor, dim: int, **kwargs: Any) -> Tensor:
    """Σ|x|"""
    sums = x.abs().cumsum(dim)
    return sums + drift(sums, x.shape[dim] if x.ndim else 1)


@magnitude("scatter_add")
def measure_scattered(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """|x| + Σ|source|"""
    total = x.abs().scatter_add(dim, index, source.abs())
    return total + drift(out, source.numel() / max(x.numel(), 1))


@magnitude("scatter.reduce scatter_reduce.two")
def measure_reduced(
    out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """|x| + Σ|source| of sums and means; a product's own size by its factors; nothing of extremes"""
    if reduce in ("amax", "amin"):
        return torch.zeros_like(out)
    if reduce in ("prod", "multiply"):
        return out.abs() * torch.ones_like(x).scatter_add(dim, index, torch.ones_like(source))
    return measure_scattered(out, x, dim, index, source)


@magnitude("index_add")
def measure_index_added(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """|x| + Σ|α||source|"""
    return x.abs().index_add(dim, index, source.abs(), alpha=abs(alpha)) + drift(out, source.numel() / x.numel())


@magnitude("index_put _unsafe_index_put")
def measure_index_put(out: Tensor, x: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """|x| + Σ|values| where they are added up; nothing where they are put"""
    return aten.index_put(x.abs(), indices, values.abs(), True) if accumulate else torch.zeros_like(out)


@magnitude("put")
def measure_put(out: Tensor, x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """|x| + Σ|source| where they are added up; nothing where they are put"""
    return x.abs().put(index, source.abs(), True) if accumulate else torch.zeros_like(out)


@magnitude("_unsafe_masked_index_put_accumulate")
def measure_masked_index_put(out: Tensor, x: Tensor, mask: Tensor, indices: Any, values: Tensor) -> Tensor:
    """|x| + Σ|values|"""
    return aten._unsafe_masked_index_put_accumulate(x.abs(), mask, indices, values.abs())  # type: ignore[no-any-return]


def measure_mean(mean: Tensor, x: Tensor, dims: list[int]) -> Tensor:
    """Σ|x|/n"""
    return x.abs().mean(dims).reshape(mean.shape) + drift(mean, x.numel() / max(mean.numel(), 1))


@magnitude("var.correction var.dim")
def measure_variance(out: Tensor, x: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """Σx²/n, which cancels in E[x²] − E[x]²"""
    terms = x.numel() / max(out.numel(), 1)
    correction = kwargs.get("correction", 1)
    if args or "unbiased" in kwargs:
        correction = int((*args, kwargs.get("unbiased"))[0])
    divisor = max(terms - (1 if correction is None else float(correction)), 1.0)
    return x.square().sum(_list_dims(x, dim)).reshape(out.shape) / divisor + drift(out, terms)


@magnitude("var_mean.correction")
def measure_variance_and_mean(
    out: tuple[Tensor, Tensor], x: Tensor, dim: Any = None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Σx²/n, which cancels in E[x²] − E[x]², and Σ|x|/n"""
    return measure_variance(out[0], x, dim, **kwargs), measure_mean(out[1], x, _list_dims(x, dim))


def _list_dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None or dim == [] or isinstance(dim, bool):
        return list(range(x.ndim))
    return [dim] if isinstance(dim, int) else list(dim)


@magnitude("linalg_vector_norm norm.ScalarOpt_dim norm.Scalar")
def measure_norm(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """2|out|: terms of one sign, each of which is rounded, and their root; squares that are no normal numbers"""
    terms = x.numel() / max(out.numel(), 1)
    flushed = torch.where(out != 0, terms * SUBNORMAL / out.abs(), 0.0).minimum(out.abs() / 2.0**-24)
    return 2 * out.abs() + drift(out, terms) + flushed


@magnitude("logsumexp")
def measure_logsumexp(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """|out| + 2: rounding the sum shifts its logarithm by so much, and the shift by the largest is rounded"""
    return out.abs() + 2 + math.sqrt(x.numel() / max(out.numel(), 1) / 3)


@magnitude("prod prod.dim_int")
def measure_prod(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """|out| for each factor"""
    return out.abs() * (x.numel() / max(out.numel(), 1))


@magnitude("cumprod")
def measure_cumprod(out: Tensor, x: Tensor, dim: int, **kwargs: Any) -> Tensor:
    """|out| for each factor"""
    return out.abs() * (x.shape[dim] if x.ndim else 1)
