"""The operations of OpenVINO, by the names that they have in its files.

Attributes have the values of these files. Many operations are ONNX's under another name, or with other attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph import linear, pointwise, reductions, resizing, shapes, windows
from foldproof.onnx_graph.held_shapes import holds_shape
from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, whole_numbers

DOMAIN = "openvino"
"""The domain of OpenVINO's operations in the table of definitions."""

DTYPES = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "boolean": torch.bool,
}


def dtype_named(name: str) -> torch.dtype:
    """Return the dtype of this name; raises NotTranslated."""
    if name not in DTYPES:
        raise NotTranslated(f"OpenVINO's type {name} has no equivalent that can be proved")
    return DTYPES[name]


def _operation(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return defines(*names, domain=DOMAIN)


def _named(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of its own for each operation: its name shows in graphs."""

    def defined(*xs: Tensor, auto_broadcast: str = "numpy") -> Tensor:
        if auto_broadcast not in ("numpy", "none"):
            raise NotTranslated(f"{name} that broadcasts by the rule {auto_broadcast} has no definition")
        return function(*xs)

    defined.__name__ = defined.__qualname__ = name.lower()
    return defined


_POINTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceiling": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "FloorMod": torch.remainder,
    "Greater": torch.gt,
    "GreaterEqual": torch.ge,
    "HSwish": functional.hardswish,
    "HSigmoid": functional.hardsigmoid,
    "IsFinite": torch.isfinite,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessEqual": torch.le,
    "Log": torch.log,
    "LogicalAnd": torch.logical_and,
    "LogicalNot": torch.logical_not,
    "LogicalOr": torch.logical_or,
    "LogicalXor": torch.logical_xor,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
    "Mish": functional.mish,
    "Mod": torch.fmod,
    "Multiply": torch.mul,
    "Negative": torch.neg,
    "NotEqual": torch.ne,
    "Power": pointwise.power,
    "ReLU": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "SoftPlus": functional.softplus,
    "SoftSign": functional.softsign,
    "Sqrt": torch.sqrt,
    "SquaredDifference": lambda x, y: (x - y) * (x - y),
    "Subtract": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
for _name, _function in _POINTWISE.items():
    _operation(_name)(_named(_name, _function))


@_operation("Divide")
def divide(x: Tensor, y: Tensor, *, auto_broadcast: str = "numpy", m_pythondiv: bool = True) -> Tensor:
    return (
        torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="floor" if m_pythondiv else "trunc")
    )


@_operation("Clamp")
def clamp(x: Tensor, *, min: float, max: float) -> Tensor:
    return torch.clamp(x, min, max)


@_operation("Elu")
def elu(x: Tensor, *, alpha: float) -> Tensor:
    return functional.elu(x, alpha)


@_operation("Gelu")
def gelu(x: Tensor, *, approximation_mode: str = "ERF") -> Tensor:
    return functional.gelu(x, approximate="tanh" if approximation_mode.upper() == "TANH" else "none")


@_operation("Swish")
def swish(x: Tensor, beta: Tensor | None = None) -> Tensor:
    return functional.silu(x) if beta is None else x * torch.sigmoid(x * beta)


@_operation("SwishCPU")
def swish_cpu(x: Tensor, *, alpha: float) -> Tensor:
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


@_operation("LeakyRelu")
def leaky_relu(x: Tensor, *, negative_slope: float, out_type: str = "") -> Tensor:
    return functional.leaky_relu(x, negative_slope)


@_operation("PReLU")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    slope = slope if slope.dim() != 1 or x.dim() < 2 else slope.reshape([-1] + [1] * (x.dim() - 2))
    return torch.where(x < 0, x * slope, x)


@_operation("HardSigmoid")
def hard_sigmoid(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.clamp(x * alpha + beta, 0, 1)


@_operation("Selu")
def selu(x: Tensor, alpha: Tensor, scale: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * (torch.exp(x) - 1)) * scale


@_operation("PowerStatic")
def power_static(x: Tensor, *, scale: float, power: float, shift: float, out_type: str = "") -> Tensor:
    """(scale·x + shift)^power"""
    made = x if scale == 1 else x * scale
    made = made if shift == 0 else made + shift
    return made if power == 1 else torch.pow(made, power)


@_operation("Select")
def select(condition: Tensor, x: Tensor, y: Tensor, *, auto_broadcast: str = "numpy") -> Tensor:
    return torch.where(condition.bool(), x, y)


@_operation("Convert")
def convert(x: Tensor, *, destination_type: str) -> Tensor:
    return x.to(dtype_named(destination_type))


@_operation("ConvertLike")
def convert_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


# Products and windows.


@_operation("MatMul")
def matmul(x: Tensor, y: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    return linear.fused_matmul(x, y, transA=int(transpose_a), transB=int(transpose_b))


@_operation("FullyConnected")
def fully_connected(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, output_type: str = "") -> Tensor:
    out = torch.matmul(x, weight.mT)
    return out if bias is None else out + bias


_PADDINGS = {"explicit": "NOTSET", "valid": "VALID", "same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def _window(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return ONNX's attributes of windows."""
    pads = (*attributes.pop("pads_begin", ()), *attributes.pop("pads_end", ()))
    return {
        "auto_pad": _PADDINGS[attributes.pop("auto_pad", "explicit")],
        "pads": pads or None,
        "strides": attributes.pop("strides", None),
        "dilations": attributes.pop("dilations", None),
    }


@_operation("Convolution")
def convolution(
    x: Tensor,
    weight: Tensor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    auto_pad: str = "explicit",
) -> Tensor:
    given = {"strides": strides, "dilations": dilations, "pads_begin": pads_begin, "pads_end": pads_end}
    return windows.conv(x, weight, **_window({**given, "auto_pad": auto_pad}))


@_operation("GroupConvolution")
def group_convolution(
    x: Tensor,
    weight: Tensor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    auto_pad: str = "explicit",
) -> Tensor:
    """Convolve in groups, which are the first dimension of the weight."""
    given = {"strides": strides, "dilations": dilations, "pads_begin": pads_begin, "pads_end": pads_end}
    return windows.conv(x, weight.flatten(0, 1), group=weight.shape[0], **_window({**given, "auto_pad": auto_pad}))


@_operation("ConvolutionBackpropData")
def convolution_transposed(
    x: Tensor,
    weight: Tensor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    output_padding: Sequence[int] | None = None,
    auto_pad: str = "explicit",
) -> Tensor:
    given = {"strides": strides, "dilations": dilations, "pads_begin": pads_begin, "pads_end": pads_end}
    window = _window({**given, "auto_pad": auto_pad})
    return windows.conv_transpose(x, weight, output_padding=output_padding, **window)


@_operation("GroupConvolutionBackpropData")
def group_convolution_transposed(
    x: Tensor,
    weight: Tensor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    output_padding: Sequence[int] | None = None,
    auto_pad: str = "explicit",
) -> Tensor:
    given = {"strides": strides, "dilations": dilations, "pads_begin": pads_begin, "pads_end": pads_end}
    window = _window({**given, "auto_pad": auto_pad})
    return windows.conv_transpose(
        x, weight.flatten(0, 1), group=weight.shape[0], output_padding=output_padding, **window
    )


@_operation("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    dilations: Sequence[int] | None = None,
    rounding_type: str = "floor",
    auto_pad: str = "explicit",
    index_element_type: str = "i64",
    axis: int = 0,
) -> Tensor:
    """the largest element of each window; the places, a second output, have no definition"""
    given = {"strides": strides, "dilations": dilations, "pads_begin": pads_begin, "pads_end": pads_end}
    window = _window({**given, "auto_pad": auto_pad})
    ceil = _ceils(rounding_type)
    return windows.max_pool(x, kernel_shape=kernel, ceil_mode=ceil, outputs=1, **window)[0]


def _ceils(rounding: str) -> int:
    if rounding not in ("floor", "ceil_torch"):
        raise NotTranslated(f"pooling that rounds its size by the rule {rounding} has no definition")
    return int(rounding == "ceil_torch")


@_operation("AvgPool")
def average_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    exclude_pad: bool,
    rounding_type: str = "floor",
    auto_pad: str = "explicit",
) -> Tensor:
    given = {"strides": strides, "pads_begin": pads_begin, "pads_end": pads_end}
    window = _window({**given, "auto_pad": auto_pad})
    window.pop("dilations")
    return windows.average_pool(
        x, kernel_shape=kernel, ceil_mode=_ceils(rounding_type), count_include_pad=int(not exclude_pad), **window
    )


@_operation("ScaledDotProductAttention")
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """softmax(scale·q·kᵀ + mask)·v; a mask of booleans keeps what is true"""
    by = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = torch.matmul(q, k.mT) * by
    if causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype is torch.bool:
        scores = torch.where(mask, scores, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(-1), v)


# Normalizations and reductions.


@_operation("BatchNormInference")
def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


@_operation("MVN")
def mean_variance_normalization(
    x: Tensor, axes: Numbers, *, eps: float, normalize_variance: bool = True, eps_mode: str = "INSIDE_SQRT"
) -> Tensor:
    dims = whole_numbers(axes)
    centred = x - x.mean(dims, keepdim=True)
    if not normalize_variance:
        return centred
    variance = (centred * centred).mean(dims, keepdim=True)
    if eps_mode.upper() == "INSIDE_SQRT":
        return centred / torch.sqrt(variance + eps)
    return centred / (torch.sqrt(variance) + eps)


@_operation("GroupNormalization")
def group_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float) -> Tensor:
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@_operation("RMS")
def rms_normalization(
    x: Tensor,
    scale: Tensor | None = None,
    *,
    epsilon: float,
    output_type: str = "",
    elementwise_affine: bool = True,
) -> Tensor:
    out = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon)
    return out if scale is None else out * scale


@_operation("SoftMax")
def softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.softmax(axis)


@_operation("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.log_softmax(axis)


def _reduction(name: str) -> Callable[..., Tensor]:
    def reduced(x: Tensor, axes: Numbers, *, keep_dims: bool = False) -> Tensor:
        dims = whole_numbers(axes)
        return reductions.REDUCTIONS[name](x, dims, keep_dims).to(x.dtype) if dims else x.clone()

    reduced.__name__ = reduced.__qualname__ = name.lower()
    return reduced


for _name in ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"):
    _operation(_name)(_reduction(_name))


@_operation("ReduceLogicalOr")
def any_of(x: Tensor, axes: Numbers, *, keep_dims: bool = False) -> Tensor:
    dims = whole_numbers(axes)
    return x.any(tuple(dims), keep_dims) if dims else x.clone()


@_operation("ReduceLogicalAnd")
def all_of(x: Tensor, axes: Numbers, *, keep_dims: bool = False) -> Tensor:
    dims = whole_numbers(axes)
    return x.all(tuple(dims), keep_dims) if dims else x.clone()


@_operation("CumSum")
def cumsum(x: Tensor, axis: Numbers, *, exclusive: bool = False, reverse: bool = False) -> Tensor:
    x = x.to(torch.uint8) if x.dtype is torch.bool else x  # its kernels hold booleans in bytes, and add these up
    return reductions.cumsum(x, axis, exclusive=int(exclusive), reverse=int(reverse))


# Shapes and places.


@holds_shape
@_operation("ShapeOf")
def shape_of(x: Tensor, *, output_type: str = "i64") -> Tensor:
    return torch.tensor(list(x.shape), dtype=dtype_named(output_type))


@_operation("Reshape")
def reshape(x: Tensor, sizes: Numbers, *, special_zero: bool) -> Tensor:
    return shapes.reshape(x, sizes, allowzero=int(not special_zero))


@_operation("Transpose")
def transpose(x: Tensor, order: Numbers) -> Tensor:
    return x.permute(whole_numbers(order) or [*reversed(range(x.dim()))])


@_operation("Squeeze")
def squeeze(x: Tensor, axes: Numbers | None = None, *, allow_axis_skip: bool = False) -> Tensor:
    return shapes.squeeze(x, axes)


@_operation("Unsqueeze")
def unsqueeze(x: Tensor, axes: Numbers) -> Tensor:
    return shapes.unsqueeze(x, axes)


@_operation("Concat")
def concat(*xs: Tensor, axis: int) -> Tensor:
    return torch.cat(xs, axis)


@defines("Split", domain=DOMAIN, several=True)
def split(x: Tensor, axis: Numbers, *, num_splits: int) -> tuple[Tensor, ...]:
    dim = whole_numbers(axis)[0]
    return torch.split(x, x.shape[dim] // num_splits, dim)


@defines("VariadicSplit", domain=DOMAIN, several=True)
def variadic_split(x: Tensor, axis: Numbers, lengths: Numbers) -> tuple[Tensor, ...]:
    dim, sizes = whole_numbers(axis)[0], whole_numbers(lengths)
    rest = x.shape[dim] - sum(n for n in sizes if n >= 0)
    return torch.split(x, [rest if n < 0 else n for n in sizes], dim)


@_operation("Slice")
def cut(x: Tensor, start: Numbers, stop: Numbers, step: Numbers, axes: Numbers | None = None) -> Tensor:
    return shapes.cut(x, start, stop, axes, step)


@_operation("Gather")
def gather(x: Tensor, places: Tensor, axis: Numbers, *, batch_dims: int = 0) -> Tensor:
    if batch_dims:
        raise NotTranslated("Gather in batches has no definition")
    return shapes.gather(x, places, axis=whole_numbers(axis)[0])


@_operation("GatherElements")
def gather_elements(x: Tensor, places: Tensor, *, axis: int) -> Tensor:
    return shapes.gather_elements(x, places, axis=axis)


@_operation("GatherND")
def gather_nd(x: Tensor, places: Tensor, *, batch_dims: int = 0) -> Tensor:
    return shapes.gather_nd(x, places, batch_dims=batch_dims)


@_operation("ScatterNDUpdate")
def scatter_nd(x: Tensor, places: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    return shapes.scatter_nd(x, places, updates, reduction={"sum": "add"}.get(reduction, reduction))


@_operation("Broadcast")
def broadcast(x: Tensor, sizes: Numbers, axes: Numbers | None = None, *, mode: str = "numpy") -> Tensor:
    if mode not in ("numpy", "bidirectional"):
        raise NotTranslated(f"Broadcast of the mode {mode} has no definition")
    return x.expand(torch.broadcast_shapes(x.shape, whole_numbers(sizes)))


@_operation("Tile")
def tile(x: Tensor, repeats: Numbers) -> Tensor:
    return x.repeat(whole_numbers(repeats))


@_operation("Pad")
def pad(x: Tensor, front: Numbers, behind: Numbers, value: Tensor | None = None, *, pad_mode: str) -> Tensor:
    return shapes.pad(x, [*whole_numbers(front), *whole_numbers(behind)], value, mode=pad_mode)


@_operation("Range")
def arange(start: Tensor, stop: Tensor, step: Tensor, *, output_type: str = "") -> Tensor:
    """Count; without ``output_type``, which the first version lacks, in the dtype of the operands."""
    dtype = dtype_named(output_type) if output_type else start.dtype
    return torch.arange(start.item(), stop.item(), step.item(), dtype=dtype)


@_operation("Interpolate")
def interpolate(
    x: Tensor,
    sizes_or_scales: Numbers,
    axes_or_scales: Numbers | None = None,
    axes: Numbers | None = None,
    *,
    mode: str,
    shape_calculation_mode: str,
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    antialias: bool = False,
    pads_begin: Sequence[int] = (),
    pads_end: Sequence[int] = (),
    cube_coeff: float = -0.75,
) -> Tensor:
    """Resize; of the two versions, the one with four inputs has sizes, scales and axes, in this order."""
    if any((*pads_begin, *pads_end)) or mode == "linear":
        raise NotTranslated("Interpolate with padding, or of the mode linear, has no definition")
    by_size = shape_calculation_mode == "sizes"
    numbers, along = sizes_or_scales, axes_or_scales
    if axes is not None:
        assert axes_or_scales is not None
        numbers, along = (sizes_or_scales if by_size else axes_or_scales), axes
    return resizing.resize(
        x,
        sizes=numbers if by_size else None,
        scales=None if by_size else numbers,
        axes=whole_numbers(along) if along is not None else None,
        mode={"linear_onnx": "linear"}.get(mode, mode),
        coordinate_transformation_mode=coordinate_transformation_mode,
        nearest_mode=nearest_mode,
        antialias=int(antialias),
        cubic_coeff_a=cube_coeff,
    )


@_operation("Col2Im")
def col2im(
    x: Tensor,
    sizes: Numbers,
    kernel: Numbers,
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads_begin: Sequence[int] = (),
    pads_end: Sequence[int] = (),
) -> Tensor:
    pads = (*pads_begin, *pads_end) or None
    return windows.col2im(x, sizes, kernel, dilations=dilations, pads=pads, strides=strides)


@_operation("Round")
def round_(x: Tensor, *, mode: str = "half_to_even") -> Tensor:
    if mode != "half_to_even":
        raise NotTranslated(f"Round of the mode {mode} has no definition")
    return torch.round(x)


@_operation("Roll")
def roll(x: Tensor, shift: Numbers, axes: Numbers) -> Tensor:
    steps, along = whole_numbers(shift), whole_numbers(axes)
    return torch.roll(x, steps * len(along) if len(steps) == 1 else steps, along)


@_operation("Einsum")
def einsum(*xs: Tensor, equation: str | Sequence[str]) -> Tensor:
    return linear.einsum(*xs, equation=equation if isinstance(equation, str) else ",".join(equation))


@_operation("AdaptiveAvgPool")
def adaptive_average_pool(x: Tensor, sizes: Numbers) -> Tensor:
    wanted = whole_numbers(sizes)
    if len(wanted) == 1:
        return functional.adaptive_avg_pool1d(x, wanted[0])
    pool: Callable[..., Tensor] = functional.adaptive_avg_pool2d if len(wanted) == 2 else functional.adaptive_avg_pool3d
    return pool(x, wanted)


@defines("TopK", domain=DOMAIN, several=True)
def topk(
    x: Tensor,
    k: Numbers,
    *,
    axis: int,
    mode: str,
    sort: str = "value",
    index_element_type: str = "i32",
    stable: bool = False,
) -> tuple[Tensor, ...]:
    if sort not in ("value", "index"):
        raise NotTranslated("TopK in any order has no definition")
    values, places = reductions.topk(x, k, axis=axis, largest=int(mode == "max"))
    if sort == "index":
        places, order = places.sort(axis)
        values = values.gather(axis, order)
    return values, places.to(dtype_named(index_element_type))


@_operation("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: bool = False, mode: str = "bilinear", padding_mode: str = "zeros"
) -> Tensor:
    return functional.grid_sample(x, grid, mode, padding_mode, align_corners)
