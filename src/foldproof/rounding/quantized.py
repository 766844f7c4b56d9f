"""Quantization in float64: PyTorch's decomposed operators accept and give float32 only, so here are their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.torch_internals import quantized_operators

aten = torch.ops.aten
decomposed = quantized_operators()


def _quantize(x: Tensor, scale: Any, zero_point: Any, low: Any, high: Any, dtype: torch.dtype) -> Tensor:
    low, high = (int(limit) for limit in (low, high))
    return x.div(scale).round().add(zero_point).clamp(low, high).to(dtype)


def _quantize_channels(
    x: Tensor, scales: Tensor, zeros: Tensor, axis: int, low: int, high: int, dtype: torch.dtype
) -> Tensor:
    return _quantize(x, _along(scales, x, axis), _along(zeros, x, axis), low, high, dtype)


def _dequantize(q: Tensor, scale: Any, zero_point: Any, *limits: Any, **out_dtype: Any) -> Tensor:
    return q.to(torch.float64).sub(zero_point).mul(scale)


def _dequantize_channels(
    q: Tensor, scales: Tensor, zeros: Tensor | None, axis: int, *limits: Any, **out_dtype: Any
) -> Tensor:
    return _dequantize(q, _along(scales, q, axis), 0 if zeros is None else _along(zeros, q, axis))


def _choose(operator: Any) -> Callable[..., Any]:
    """The real operator: it computes float64 parameters of float32 values."""
    return lambda x, *attributes, **kwargs: operator(x.to(torch.float32), *attributes, **kwargs)


def _along(vector: Tensor, x: Tensor, axis: int) -> Tensor:
    return vector.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])


def _fake(x: Tensor, scale: Any, zero_point: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    q = x.div(scale).round().add(zero_point)
    return q.clamp(low, high).sub(zero_point).mul(scale), (q >= low) & (q <= high)


def _fake_channels(x: Tensor, scales: Tensor, zeros: Tensor, axis: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    return _fake(x, _along(scales, x, axis), _along(zeros, x, axis), low, high)


def _fused_fake(
    x: Tensor,
    observer_on: Tensor,
    on: Tensor,
    least: Tensor,
    greatest: Tensor,
    scale: Tensor,
    zero: Tensor,
    averaging: float,
    low: int,
    high: int,
    axis: int,
    per_row: bool = False,
    symmetric: bool = False,
) -> tuple[Tensor, Tensor]:
    if bool(observer_on.any()):
        raise TypeError("an observer that is still learning has no float64 form")
    if not bool(on.all()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    return _fake_channels(x, scale, zero, axis, low, high) if per_row else _fake(x, scale, zero, low, high)


WIDE: dict[Any, Callable[..., Any]] = {
    decomposed.quantize_per_tensor.default: _quantize,
    decomposed.quantize_per_tensor.tensor: _quantize,
    decomposed.quantize_per_tensor.tensor2: _quantize,
    decomposed.quantize_per_channel.default: _quantize_channels,
    decomposed.dequantize_per_tensor.default: _dequantize,
    decomposed.dequantize_per_tensor.tensor: _dequantize,
    decomposed.dequantize_per_tensor.tensor2: _dequantize,
    decomposed.dequantize_per_channel.default: _dequantize_channels,
    aten.fake_quantize_per_channel_affine_cachemask.default: _fake_channels,
    aten._fused_moving_avg_obs_fq_helper.default: _fused_fake,
    decomposed.choose_qparams.tensor: _choose(decomposed.choose_qparams.tensor),
    decomposed.choose_qparams_symmetric.tensor: _choose(decomposed.choose_qparams_symmetric.tensor),
}
"""Operators that have no float64 kernel, by what computes them in float64."""


def _scaled(x: Tensor, scale: Any, zero_point: Any, *attributes: Any) -> Tensor:
    return x.div(scale).add(zero_point)


def _scaled_channels(x: Tensor, scales: Tensor, zeros: Tensor, axis: int, *attributes: Any) -> Tensor:
    return _scaled(x, _along(scales, x, axis), _along(zeros, x, axis))


def _kept(x: Tensor, *attributes: Any) -> tuple[Tensor, Tensor]:
    return x.clone(), torch.ones_like(x, dtype=torch.bool)


UNROUNDED: dict[Any, Callable[..., Any]] = {
    decomposed.quantize_per_tensor.default: _scaled,
    decomposed.quantize_per_tensor.tensor: _scaled,
    decomposed.quantize_per_tensor.tensor2: _scaled,
    decomposed.quantize_per_channel.default: _scaled_channels,
    aten.fake_quantize_per_tensor_affine_cachemask.default: _kept,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: _kept,
    aten.fake_quantize_per_channel_affine_cachemask.default: _kept,
    aten._fused_moving_avg_obs_fq_helper.default: _kept,
}
"""The same operators, and those that quantize and dequantize at once, without rounding and limits."""
