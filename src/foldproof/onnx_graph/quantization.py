"""Quantization to integers and back, as PyTorch's operators for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

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
