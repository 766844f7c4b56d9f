"""Operators that round like the operators that they are made of: each of these parts is perturbed by itself.

They include functions with jumps, such as a quotient that is rounded down: if the perturbed quotient may lie on either
side of a whole number, the result may be either number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.ao.quantization.utils import determine_qparams

from foldproof.operators import NoDecomposition, bind_arguments, find_decomposition
from foldproof.rounding.magnitudes.registry import find_aten
from foldproof.rounding.quantized import WIDE, fake_quantize, fake_quantize_fused
from foldproof.torch_internals import DispatchMode, OpOverload, quantized_operators, tree_leaves

aten = torch.ops.aten
decomposed = quantized_operators()

Parts = Callable[..., Any]
"""A function that takes an operator's arguments and computes its results by other operators."""

P = TypeVar("P", bound=Parts)

PARTS: dict[OpOverload, Parts] = {}


def parts(*names: str) -> Callable[[P], P]:
    """Register the decorated function for ATen operators; its docstring appears in docs/operators.md."""

    def register(function: P) -> P:
        PARTS.update(dict.fromkeys(find_aten(*names), function))
        return function

    return register


def has_floats(args: Any, kwargs: Any) -> bool:
    """Return True if there are floating-point numbers among the arguments: of integers alone, nothing is rounded."""
    given = tree_leaves((args, kwargs))
    return any(x.is_floating_point() if isinstance(x, Tensor) else type(x) is float for x in given)


def compute_in_parts(mode: DispatchMode, operator: OpOverload, out: Any, args: Any, kwargs: Any) -> bool:
    """Write the results of the operator's parts, run under ``mode``, into ``out``; False if this form has no parts."""
    if not has_floats(args, kwargs):
        return True
    if operator not in PARTS:  # it writes into given memory, whose old contents are gone
        return False
    try:
        with mode:
            made = PARTS[operator](*args, **kwargs)
    except NoDecomposition:
        return False
    for result, by_parts in zip(tree_leaves(out), tree_leaves(made)):
        if isinstance(result, Tensor) and isinstance(by_parts, Tensor):
            result.copy_(by_parts)  # keep the memory layout, on which views depend
    return True


def _decompose(operator: OpOverload) -> Parts:
    def run(*args: Any, **kwargs: Any) -> Any:
        """its decomposition"""
        return find_decomposition(operator)(*args, **kwargs)

    return run


for _operator in find_aten(
    """
    glu _weight_norm_interface huber_loss mse_loss smooth_l1_loss soft_margin_loss binary_cross_entropy
    binary_cross_entropy_with_logits nll_loss_forward nll_loss2d_forward
    native_batch_norm_backward native_group_norm_backward native_layer_norm_backward
    _softmax_backward_data _log_softmax_backward_data _weight_norm_interface_backward
    huber_loss_backward mse_loss_backward smooth_l1_loss_backward soft_margin_loss_backward
    _scaled_dot_product_flash_attention_for_cpu_backward _embedding_bag_backward
    binary_cross_entropy_backward nll_loss_backward nll_loss2d_backward
    elu_backward gelu_backward glu_backward hardsigmoid_backward hardswish_backward log_sigmoid_backward logit_backward
    native_dropout_backward mish_backward sigmoid_backward silu_backward softplus_backward tanh_backward
    _cdist_backward _pdist_backward grid_sampler_2d_backward upsample_bicubic2d_backward upsample_bilinear2d_backward
    upsample_linear1d_backward upsample_trilinear3d_backward
    _native_multi_head_attention _transformer_encoder_layer_fwd mkldnn_rnn_layer mkldnn_rnn_layer_backward _grouped_mm
    """
):
    PARTS[_operator] = _decompose(_operator)


def _interpolate(operator: OpOverload) -> Parts:
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """its decomposition, of elements that are rounded: so are their products with weights"""
        # A sum of one term: a term is rounded even where the result of the other terms happens to be exact.
        return find_decomposition(operator)(x.unsqueeze(0).sum(0), *args, **kwargs)

    return run


for _operator in find_aten(
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d grid_sampler_2d"
):
    PARTS[_operator] = _interpolate(_operator)


@parts("std.correction std.dim")
def _take_deviation(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """the root of the variance"""
    return torch.var(x, *args, **kwargs).sqrt()


@parts("std_mean.correction")
def _take_deviation_and_mean(x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """the root of the variance, and the mean"""
    variance, mean = torch.var_mean(x, *args, **kwargs)
    return variance.sqrt(), mean


def _divide(x: Any, y: Any) -> Tensor:
    """Divide without perturbing quotients that are known to be whole: such a division is exact."""
    quotient = torch.as_tensor(x / y)
    if not quotient.is_floating_point():
        return quotient
    return torch.where(torch.as_tensor(torch.fmod(torch.as_tensor(x), y)) == 0, quotient.round(), quotient)


@parts("div.Tensor_mode div.Scalar_mode")
def _divide_and_round(x: Tensor, y: Any, *, rounding_mode: str | None) -> Tensor:
    """a quotient, rounded to a whole number"""
    if rounding_mode is None:
        return torch.div(x, y)
    return _divide(x, y).floor() if rounding_mode == "floor" else _divide(x, y).trunc()


@parts("floor_divide floor_divide.Scalar")
def _divide_down(x: Tensor, y: Any) -> Tensor:
    """a quotient, rounded down to a whole number"""
    return _divide(x, y).floor()


@parts("remainder.Tensor remainder.Scalar remainder.Scalar_Tensor")
def _take_remainder(x: Any, y: Any) -> Tensor:
    """a − b·⌊a/b⌋"""
    found: Tensor = x - y * _divide(x, y).floor()
    return found


@parts("round.decimals")
def _round_to_digits(x: Tensor, *, decimals: int) -> Tensor:
    """a product with a power of ten, rounded to a whole number, and a quotient"""
    power = 10.0 ** abs(decimals)
    return (x * power).round().div(power) if decimals >= 0 else x.div(power).round().mul(power)


@parts("histc")
def _count_in_bins(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """the number of elements between edges that are evenly spaced, and rounded"""
    low, high = (float(x.min()), float(x.max())) if min == max and x.numel() else (float(min), float(max))
    low, high = (low - 1, high + 1) if low == high else (low, high)
    edges = torch.linspace(low, high, bins + 1, dtype=x.dtype)
    inside = x[(x >= low) & (x <= high)]
    places = torch.bucketize(inside, edges, right=True) - 1
    return torch.bincount(places.clamp(0, bins - 1), minlength=bins).to(x.dtype)


@parts("_cdist_forward")
def _measure_distances(x: Tensor, y: Tensor, p: float, compute_mode: int | None) -> Tensor:
    """the norm of each difference, or √(|x|² + |y|² − 2xy), as it is told"""
    few = compute_mode in (None, 0) and x.shape[-2] <= 25 and y.shape[-2] <= 25
    if p != 2 or few or compute_mode == 2:
        return _measure_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p)
    return _measure_euclidean(x, y)


@parts("_euclidean_dist")
def _measure_euclidean(x: Tensor, y: Tensor) -> Tensor:
    """√(|x|² + |y|² − 2xy)"""
    squares = x.square().sum(-1, True) + y.square().sum(-1, True).transpose(-2, -1)
    return (squares - 2 * (x @ y.transpose(-2, -1))).clamp_min(0).sqrt()


@parts("_pdist_forward")
def _measure_distances_within(x: Tensor, p: float = 2) -> Tensor:
    """the norm of each difference"""
    rows, columns = torch.triu_indices(len(x), len(x), 1)
    return _measure_norm(x[rows] - x[columns], p)


def _measure_norm(x: Tensor, p: float) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(x, p, -1)
    return found


@parts("fake_quantize_per_tensor_affine_cachemask")
def _fake_quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    """a quotient, rounded to a whole number, and a product"""
    return fake_quantize(x, scale, zero_point, low, high)


@parts("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def _fake_quantize_if_enabled(
    x: Tensor, scale: Tensor, zero_point: Tensor, enabled: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """a quotient, rounded to a whole number, and a product"""
    if not bool(enabled.all()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    return fake_quantize(x, scale, zero_point, low, high)


def _quantize(operator: OpOverload) -> Parts:
    def run(*args: Any, **kwargs: Any) -> Any:
        """a quotient, rounded to a whole number"""
        return WIDE[operator](*args, **kwargs)

    return run


for _operator in (
    decomposed.quantize_per_tensor.default,
    decomposed.quantize_per_tensor.tensor,
    decomposed.quantize_per_tensor.tensor2,
    decomposed.quantize_per_channel.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
):
    PARTS[_operator] = _quantize(_operator)


@parts("_fused_moving_avg_obs_fq_helper")
def _fake_quantize_fused(*args: Any) -> tuple[Tensor, Tensor]:
    """a quotient, rounded to a whole number, and a product"""
    return fake_quantize_fused(*args)


def _choose_scale(scheme: torch.qscheme) -> Parts:
    def run(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """the range by the number of steps, and the place of zero, rounded to a whole number"""
        return determine_qparams(*x.aminmax(), low, high, dtype, torch.tensor([eps]), False, scheme)

    return run


PARTS[decomposed.choose_qparams.tensor] = _choose_scale(torch.per_tensor_affine)
PARTS[decomposed.choose_qparams_symmetric.tensor] = _choose_scale(torch.per_tensor_symmetric)


def _attend(operator: OpOverload) -> Parts:
    def run(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """softmax(q·kᵀ·scale + mask)·v, and the logarithm of the sum of the exponentials"""
        given = bind_arguments(operator, args, kwargs)
        query, key, value = (given[name] for name in ("query", "key", "value"))
        if key.shape[1] != query.shape[1]:  # heads that share a key and a value
            key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
        scale = given.get("scale")
        scores = (query @ key.transpose(-2, -1)) * (query.shape[-1] ** -0.5 if scale is None else scale)
        mask = given.get("attn_mask", given.get("attn_bias"))
        if given.get("is_causal"):
            mask = torch.zeros(scores.shape[-2:]).masked_fill(torch.ones(scores.shape[-2:]).triu(1) > 0, -math.inf)
        if mask is not None:
            scores = scores + mask
        return aten._safe_softmax.default(scores, -1) @ value, scores.logsumexp(-1)

    return run


for _operator in find_aten(
    """
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
    _scaled_dot_product_efficient_attention
    """
):
    PARTS[_operator] = _attend(_operator)
