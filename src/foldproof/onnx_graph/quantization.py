"""Quantization to integers and back, as PyTorch's operators for it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from foldproof.onnx_graph import windows
from foldproof.onnx_graph.registry import MICROSOFT, NotTranslated, defines, dtype_of
from foldproof.torch_internals import quantized_operators

decomposed = quantized_operators()
_LIMITS = {
    torch.int8: (-128, 127),
    torch.uint8: (0, 255),
    torch.int16: (-32768, 32767),
    torch.int32: (-(2**31), 2**31 - 1),
}


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    if dtype not in _LIMITS:
        raise NotTranslated(f"quantization to {dtype} has no definition")
    return _LIMITS[dtype]


@defines("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    dtype = zero.dtype if zero is not None else dtype_of(output_dtype) if output_dtype else torch.uint8
    if block_size:
        raise NotTranslated("QuantizeLinear in blocks has no definition")
    low, high = _limits(dtype)
    point, points = _points(scale, zero)
    if points is None:
        made = decomposed.quantize_per_tensor.default(x, float(scale.reshape(())), point, low, high, dtype)
    else:
        made = decomposed.quantize_per_channel.default(x, scale, points, axis % x.dim(), low, high, dtype)
    return cast(Tensor, made)


def _points(scale: Tensor, zero: Tensor | None) -> tuple[int, Tensor | None]:
    """Return the zero point of a tensor, or those of its channels."""
    if scale.numel() == 1:
        return (0 if zero is None else int(zero.reshape(()))), None
    return 0, torch.zeros(scale.shape, dtype=torch.int64) if zero is None else zero.long()


@defines("QuantizeLinear", domain=MICROSOFT)
def microsoft_quantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Tensor:
    return quantize_linear(x, scale, zero, axis=axis)


@defines("DequantizeLinear")
def dequantize_linear(
    x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Tensor:
    if block_size:
        raise NotTranslated("DequantizeLinear in blocks has no definition")
    low, high = _limits(x.dtype)
    point, points = _points(scale, zero)
    if points is None:
        made = decomposed.dequantize_per_tensor.default(x, float(scale.reshape(())), point, low, high, x.dtype)
    else:
        made = decomposed.dequantize_per_channel.default(x, scale, points, axis % x.dim(), low, high, x.dtype)
    return cast(Tensor, made)


@defines("DequantizeLinear", domain=MICROSOFT)
def microsoft_dequantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Tensor:
    return dequantize_linear(x, scale, zero, axis=axis)


@defines("QLinearMatMul")
def qlinear_matmul(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
) -> Tensor:
    if any(one.numel() != 1 for one in (x_scale, y_scale, scale)):
        raise NotTranslated("QLinearMatMul with a scale for each row or column has no definition")
    product = torch.matmul(dequantize_linear(x, x_scale, x_zero), dequantize_linear(y, y_scale, y_zero))
    return quantize_linear(product, scale, zero)


@defines("QLinearConv", like=windows.conv)
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    bias: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """Convolve in real numbers; the bias is in units of the product of both scales."""
    wide = None if bias is None else bias.to(x_scale.dtype) * x_scale * w_scale
    filters = dequantize_linear(weight, w_scale, w_zero, axis=0)
    return quantize_linear(
        windows.conv(dequantize_linear(x, x_scale, x_zero), filters, wide, **attributes), scale, zero
    )


@defines("ConvInteger", like=windows.conv)
def conv_integer(
    x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None, **attributes: Any
) -> Tensor:
    image, filters = x.to(torch.float64), weight.to(torch.float64)  # which holds all sums
    if x_zero is not None:
        image = image - x_zero.to(torch.float64)
    if w_zero is not None:
        filters = filters - w_zero.to(torch.float64).reshape([-1] + [1] * (weight.dim() - 1) * (w_zero.dim() > 0))
    return windows.conv(image, filters, **attributes).to(torch.int32)
