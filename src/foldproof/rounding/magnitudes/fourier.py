"""Fourier transforms: each element is a sum with factors of absolute value 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import magnitude


@magnitude("_fft_c2c _fft_r2c")
def measure_transform(out: Tensor, x: Tensor, dim: list[int], normalization: int, *args: object) -> Tensor:
    """Σ|x|·log₂(2n), normalised: a fast transform rounds each term in log₂ n steps"""
    return _spread(out, x.abs(), dim, normalization, math.prod(x.shape[d] for d in dim))


@magnitude("_fft_c2r")
def measure_real_transform(out: Tensor, x: Tensor, dim: list[int], normalization: int, size: int) -> Tensor:
    """2Σ|x|·log₂(2n), normalised: each term stands for two"""
    n = math.prod(x.shape[d] for d in dim[:-1]) * size
    return _spread(out, 2 * x.abs(), dim, normalization, n)


def _spread(out: Tensor, size: Tensor, dim: list[int], normalization: int, n: int) -> Tensor:
    factor = {0: 1.0, 1: n**-0.5, 2: 1.0 / max(n, 1)}[normalization] * math.log2(2 * max(n, 1))
    total: Tensor = size.sum(dim, True) * factor
    return total.expand(out.shape).clone(memory_format=torch.contiguous_format)
