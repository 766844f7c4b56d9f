"""Quantization in float64, by formulas, because PyTorch's decomposed operators accept and return float32 only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import bind_arguments, find_decomposition
from foldproof.torch_internals import quantized_operators

aten = torch.ops.aten
decomposed = quantized_operators()
_FUSED = aten._fused_moving_avg_obs_fq_helper.default
_NARROW = ("self", "running_min", "running_max", "scale")  # the arguments that it accepts only in float32


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
    """Return the real operator, run on float32 values, with its parameters in float64."""
    return lambda x, *attributes, **kwargs: operator(x.to(torch.float32), *attributes, **kwargs)


def _along(vector: Tensor, x: Tensor, axis: int) -> Tensor:
    return vector.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])


def fake_quantize(x: Tensor, scale: Any, zero_point: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    q = x.div(scale).round().add(zero_point)
    return q.clamp(low, high).sub(zero_point).mul(scale), (q >= low) & (q <= high)


def _fake_channels(x: Tensor, scales: Tensor, zeros: Tensor, axis: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    return fake_quantize(x, _along(scales, x, axis), _along(zeros, x, axis), low, high)


def fake_quantize_fused(*args: Any) -> tuple[Tensor, Tensor]:
    """Quantize and dequantize with the given scale."""
    given = bind_arguments(_FUSED, args, {})
    x, scale, zero = given["self"], given["scale"], given["zero_point"]
    if bool(given["observer_on"].any()):
        raise TypeError("an observer that is still learning has no float64 form")
    if not bool(given["fake_quant_on"].all()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if given["per_row_fake_quant"]:
        return _fake_channels(x, scale, zero, given["ch_axis"], given["quant_min"], given["quant_max"])
    return fake_quantize(x, scale, zero, given["quant_min"], given["quant_max"])


def _fake_fused(*args: Any) -> tuple[Tensor, Tensor]:
    """Quantize and dequantize with the scale of the statistics.

    Like the real operator, compute that scale anew, and write it over the given one.
    """
    given = bind_arguments(_FUSED, args, {})
    if not bool(given["observer_on"].any()):
        narrow = {n: t.to(torch.float32) if n in _NARROW else t for n, t in given.items()}
        narrow["zero_point"] = narrow["zero_point"].clone()
        _FUSED(**narrow)
        for name in ("scale", "zero_point"):
            given[name].copy_(narrow[name])
    return fake_quantize_fused(*args)


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
    aten._fused_moving_avg_obs_fq_helper.default: _fake_fused,
    aten._grouped_mm.default: find_decomposition(aten._grouped_mm.default),
    aten.mkldnn_rnn_layer.default: find_decomposition(aten.mkldnn_rnn_layer.default),
    aten.mkldnn_rnn_layer_backward.default: find_decomposition(aten.mkldnn_rnn_layer_backward.default),
    decomposed.choose_qparams.tensor: _choose(decomposed.choose_qparams.tensor),
    decomposed.choose_qparams_symmetric.tensor: _choose(decomposed.choose_qparams_symmetric.tensor),
}
"""Replacements for operators without a float64 kernel."""


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
