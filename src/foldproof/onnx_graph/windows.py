"""Windows that move over the spatial dimensions: their padding, convolutions, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph import pointwise
from foldproof.onnx_graph.registry import MICROSOFT, NotTranslated, Numbers, defines, whole_numbers

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}

Around = list[tuple[int, int]]
"""Elements in front of and behind each spatial dimension."""


def _of_rank(table: Mapping[int, Callable[..., Tensor]], x: Tensor) -> Callable[..., Tensor]:
    if x.dim() - 2 not in table:
        raise NotTranslated(f"windows over {x.dim() - 2} dimensions have no definition")
    return table[x.dim() - 2]


def find_padding(
    x: Tensor,
    auto_pad: str,
    pads: Sequence[int] | None,
    kernel: Sequence[int],
    steps: Sequence[int],
    dilations: Sequence[int],
) -> Around:
    """Return the padding that the attributes ask for.

    ``SAME_UPPER`` and ``SAME_LOWER`` pad so that there are ceil(n/step) windows; an odd element is behind or in front.
    """
    n = len(kernel)
    if auto_pad in ("NOTSET", ""):
        given = list(pads) if pads else [0] * 2 * n
        return [(given[i], given[i + n]) for i in range(n)]
    if auto_pad == "VALID":
        return [(0, 0)] * n
    if any(n != 1 for n in dilations):
        raise NotTranslated("windows with dilations that are padded by the size of the result have no definition")
    around: Around = []
    for size, width, step, dilation in zip(x.shape[2:], kernel, steps, dilations):
        total = max((math.ceil(size / step) - 1) * step + (width - 1) * dilation + 1 - size, 0)
        small = total // 2
        around.append((small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small))
    return around


def padded(x: Tensor, around: Around, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Return ``x`` with the padding that PyTorch's windows can't do, and the padding that is left to them."""
    if all(front == behind >= 0 for front, behind in around):
        return x, [front for front, _ in around]
    return functional.pad(x, [n for pair in reversed(around) for n in pair], value=value), [0] * len(around)


@defines("Conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    kernel = list(weight.shape[2:])
    by, apart = _each(strides, kernel), _each(dilations, kernel)
    x, around = padded(x, find_padding(x, auto_pad, pads, kernel, by, apart))
    return _of_rank(_CONVOLUTIONS, x)(x, weight, bias, by, around, apart, group)


def _each(given: Sequence[int] | None, kernel: Sequence[int]) -> list[int]:
    return list(given) if given else [1] * len(kernel)


@defines("FusedConv", domain=MICROSOFT, like=conv)
def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Any,
) -> Tensor:
    """Convolve, add ``other``, and apply the activation."""
    out = conv(x, weight, bias, **attributes)
    return pointwise.activation(activation, list(activation_params))(out if other is None else out + other)


@defines("ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    kernel = list(weight.shape[2:])
    by, apart = _each(strides, kernel), _each(dilations, kernel)
    more = list(output_padding) if output_padding else [0] * len(kernel)
    if auto_pad not in ("NOTSET", "", "VALID") or output_shape:
        raise NotTranslated("ConvTranspose that pads by the size of its result has no definition")
    around = find_padding(x, auto_pad, pads, kernel, by, apart)
    out = _of_rank(_TRANSPOSED, x)(x, weight, bias, by, 0, 0, group, apart)
    if any(more):
        out = functional.pad(out, [n for extra in reversed(more) for n in (0, extra)])
        if bias is not None:  # nothing but the bias is in the padding
            out = _with_bias_behind(out, bias, [out.shape[2 + i] - extra for i, extra in enumerate(more)])
    for i, (front, behind) in enumerate(around):
        out = out.narrow(2 + i, front, out.shape[2 + i] - front - behind)
    return out


def _with_bias_behind(out: Tensor, bias: Tensor, ends: Sequence[int]) -> Tensor:
    """Return ``out`` with the bias behind these ends of its spatial dimensions."""
    inside = torch.ones(out.shape[2:], dtype=torch.bool, device=out.device)
    for i, end in enumerate(ends):
        inside = inside & (torch.arange(out.shape[2 + i], device=out.device) < end).reshape(
            [-1 if d == i else 1 for d in range(len(ends))]
        )
    return torch.where(inside, out, bias.reshape(1, -1, *[1] * len(ends)))


# Pooling.


@defines("MaxPool", several=True)
def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    by, apart = _each(strides, kernel_shape), _each(dilations, kernel_shape)
    around = find_padding(x, auto_pad, pads, kernel_shape, by, apart)
    if ceil_mode and any(front != behind or front > w // 2 for (front, behind), w in zip(around, kernel_shape)):
        raise NotTranslated("MaxPool with uneven or large padding and ceil_mode has no definition")
    if any(n > width // 2 for pair, width in zip(around, kernel_shape) for n in pair):
        x, left = functional.pad(x, [n for pair in reversed(around) for n in pair], value=-math.inf), [0] * len(around)
    else:
        x, left = padded(x, around, -math.inf)
    pool = _of_rank(_MAXIMA, x)
    if outputs == 1:
        return (pool(x, list(kernel_shape), by, left, apart, bool(ceil_mode)),)
    if left != [front for front, _ in around] or storage_order:
        raise NotTranslated("MaxPool with places of elements in another order has no definition")
    found, places = pool(x, list(kernel_shape), by, left, apart, bool(ceil_mode), return_indices=True)
    plane = math.prod(x.shape[2:])
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * (x.dim() - 2))
    return found, places + planes * plane  # PyTorch counts in each plane


@defines("AveragePool")
def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    by = _each(strides, kernel_shape)
    if dilations and any(n != 1 for n in dilations):
        raise NotTranslated("AveragePool with dilations has no definition")
    around = find_padding(x, auto_pad, pads, kernel_shape, by, _each(None, kernel_shape))
    fits = all(front == behind <= width // 2 for (front, behind), width in zip(around, kernel_shape))
    pool = _of_rank(_MEANS, x)
    if fits:
        return pool(x, list(kernel_shape), by, [n for n, _ in around], bool(ceil_mode), bool(count_include_pad))
    if ceil_mode:
        raise NotTranslated("AveragePool with uneven padding and ceil_mode has no definition")
    sides = [n for pair in reversed(around) for n in pair]
    total = pool(functional.pad(x, sides), list(kernel_shape), by)
    if count_include_pad:
        return total
    inside = functional.pad(torch.ones(x.shape, dtype=x.dtype, device=x.device), sides)
    return total / pool(inside, list(kernel_shape), by)


@defines("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean([*range(2, x.dim())], keepdim=True)


@defines("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax([*range(2, x.dim())], keepdim=True)


@defines("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    if p != 2:
        raise NotTranslated(f"GlobalLpPool of the power {p} has no definition")
    return (x * x).sum([*range(2, x.dim())], keepdim=True).sqrt()


@defines("LpPool")
def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    if ceil_mode:
        raise NotTranslated("LpPool with ceil_mode has no definition")
    powers = x * x if p == 2 else x.abs().pow(p)
    total = average_pool(
        powers,
        auto_pad=auto_pad,
        count_include_pad=1,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    ) * math.prod(kernel_shape)
    return total.sqrt() if p == 2 else total.pow(1 / p)


@defines("MaxUnpool")
def max_unpool(
    x: Tensor,
    places: Tensor,
    sizes: Numbers | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Put the elements at their places, which count through the whole result; all others are 0."""
    if sizes is not None:
        raise NotTranslated("MaxUnpool to a given size has no definition")
    by, around = _each(strides, kernel_shape), list(pads) if pads else [0] * 2 * len(kernel_shape)
    spatial = [
        (n - 1) * step + width - around[i] - around[i + len(by)]
        for i, (n, step, width) in enumerate(zip(x.shape[2:], by, kernel_shape))
    ]
    shape = [*x.shape[:2], *spatial]
    empty = torch.zeros(math.prod(shape), dtype=x.dtype, device=x.device)
    return empty.scatter(0, places.flatten(), x.flatten()).reshape(shape)


@defines("Col2Im")
def col2im(
    x: Tensor,
    sizes: Numbers,
    block: Numbers,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    kernel, image = whole_numbers(block), whole_numbers(sizes)
    around = list(pads) if pads else [0] * 2 * len(kernel)
    if len(kernel) != 2 or around[:2] != around[2:]:
        raise NotTranslated("Col2Im over other than two dimensions, or with uneven padding, has no definition")
    steps, apart = tuple(_each(strides, kernel)), tuple(_each(dilations, kernel))
    return functional.fold(x, tuple(image), tuple(kernel), apart, tuple(around[:2]), steps)
