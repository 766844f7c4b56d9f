"""Quantizing, dequantizing, and both at once: rounding is uninterpreted, everything else is exact.

q = clamp(round(x/scale) + zero_point, quant_min, quant_max), and back: scale·(q − zero_point). The integers carry
residues, so that quantizing in one program (or in a pass) and dequantizing later are related. A fused fake
quantization, a pair of operators, and the same formula written by hand agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import bind_arguments, get_name
from foldproof.shadow.call import Call, value_of
from foldproof.shadow.registry import RuleKind, composed, rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.rules.branching import extreme
from foldproof.shadow.sample import RoundedParameter
from foldproof.shadow.undecided import Undecided
from foldproof.torch_internals import quantized_operators

aten = torch.ops.aten
decomposed = quantized_operators()
_FUSED = aten._fused_moving_avg_obs_fq_helper.default

_INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)


@rule(
    RuleKind.COMPOSED,
    decomposed.quantize_per_tensor.default,
    decomposed.quantize_per_tensor.tensor,
    decomposed.quantize_per_tensor.tensor2,
    integers=True,
)
def quantize_per_tensor(
    call: Call, x: Tensor, scale: Any, zero_point: Any, quant_min: Any, quant_max: Any, dtype: torch.dtype
) -> Residue:
    """clamp(round(x·scale⁻¹) + zero_point, quant_min, quant_max), with uninterpreted rounding, min and max"""
    if dtype not in _INTEGERS:
        raise call.undecided(f"{dtype} rounds once more, which residues do not show")
    return _quantized(call, x, scale, zero_point, quant_min, quant_max)


@rule(RuleKind.COMPOSED, decomposed.quantize_per_channel.default, integers=True)
def quantize_per_channel(
    call: Call,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> Residue:
    """as quantize_per_tensor, with a scale and a zero point for each slice along the axis"""
    if dtype not in _INTEGERS:
        raise call.undecided(f"{dtype} rounds once more, which residues do not show")
    return _quantized(call, x, scales, zero_points, quant_min, quant_max, axis)


@composed(
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_tensor.tensor2,
)
def dequantize_per_tensor(call: Call, q: Tensor, scale: Any, zero_point: Any, *args: Any, **kwargs: Any) -> Residue:
    """scale·(q − zero_point)"""
    step, zero = (_broadcast(call.residue(v), q, None) for v in (scale, zero_point))
    return (call.residue(q) - zero) * step


@composed(decomposed.dequantize_per_channel.default)
def dequantize_per_channel(
    call: Call, q: Tensor, scales: Tensor, zero_points: Tensor | None, axis: int, *args: Any, **kwargs: Any
) -> Residue:
    """scale·(q − zero_point), with a scale and a zero point for each slice along the axis"""
    if zero_points is not None and zero_points.dtype.is_floating_point and not q.dtype.is_floating_point:
        raise call.undecided("no rule for this form: its zero points are no integers")
    out = call.residue(q)
    if zero_points is not None:
        out = out - _broadcast(call.residue(zero_points), q, axis)
    return out * _broadcast(call.residue(scales), q, axis)


@rule(RuleKind.COMPOSED, aten.fake_quantize_per_tensor_affine_cachemask.default, integers=True)
def fake_quantize_per_tensor(
    call: Call, x: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int
) -> tuple[Residue, Residue]:
    """quantized and dequantized again; the mask (what was in range) is uninterpreted"""
    return _fake(call, x, scale, zero_point, quant_min, quant_max)


@rule(RuleKind.COMPOSED, aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default, integers=True)
def fake_quantize_per_tensor_tensor(
    call: Call, x: Tensor, scale: Tensor, zero_point: Tensor, enabled: Tensor, quant_min: int, quant_max: int
) -> tuple[Residue, Residue]:
    """quantized and dequantized again where it is switched on; the mask (what was in range) is uninterpreted"""
    if not bool(call.indices(enabled).all()):
        return call.residue(x).map(torch.clone), call.residue(call.result[1])
    return _fake(call, x, scale, zero_point, quant_min, quant_max)


@rule(RuleKind.COMPOSED, aten.fake_quantize_per_channel_affine_cachemask.default, integers=True)
def fake_quantize_per_channel(
    call: Call, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> tuple[Residue, Residue]:
    """quantized and dequantized again, slice by slice; the mask (what was in range) is uninterpreted"""
    if zero_point.dtype.is_floating_point:
        raise call.undecided("no rule for this form: its zero points are no integers")
    return _fake(call, x, scale, zero_point, quant_min, quant_max, axis)


@rule(RuleKind.COMPOSED, _FUSED, rewrites=True)
def fused_fake_quantize(*args: Any) -> tuple[Tensor, Tensor]:
    """a fake quantization, if its observer is switched off (else no rule: it learns from what it is shown)"""
    given = bind_arguments(_FUSED, args, {})
    x, scale, zero_point, on = (given[name] for name in ("self", "scale", "zero_point", "fake_quant_on"))
    limits = given["quant_min"], given["quant_max"]
    if bool(given["observer_on"].any()):
        raise Undecided("no rule for this form: an observer is still learning; call disable_observer on the model")
    if not bool(on.all()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    _require_scale_of_statistics(given)
    if given["per_row_fake_quant"]:
        axis = given["ch_axis"]
        made = aten.fake_quantize_per_channel_affine_cachemask.default(x, scale, zero_point, axis, *limits)
    else:
        fake = aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default
        made = fake(x, scale, zero_point, on, *limits)
    return made[0], made[1]


def _require_scale_of_statistics(given: Mapping[str, Any]) -> None:
    """Require the scale of the running extremes.

    The operator does not read its scale: at each call it computes it anew from the statistics, and writes it.
    """
    values = {name: value_of(x) for name, x in given.items()}
    made = {name: x.clone() if isinstance(x, Tensor) else x for name, x in values.items()}
    _FUSED(**made)
    if any(not torch.equal(made[name], values[name]) for name in ("scale", "zero_point")):
        raise Undecided("no rule for this form: the scale of a fake quantization is not that of its running extremes")


@rule(RuleKind.BRANCH, decomposed.choose_qparams.tensor, decomposed.choose_qparams_symmetric.tensor, integers=True)
def choose_qparams(
    call: Call, x: Tensor, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Residue, Residue]:
    """any functions of the smallest and the largest element by value, and of the attributes"""
    value = call.value(x)
    ends = [extreme(call.residue(x), value, None, False, largest) for largest in (False, True)]
    name, attributes = get_name(call.operator), (quant_min, quant_max, eps, dtype)

    def real(i: int) -> Any:
        return lambda low, high: call.operator(torch.stack([low, high]).float(), *attributes)[i].double()

    made = [call.uninterpreted(ends, *attributes, real=real(i), name=f"{name}[{i}]") for i in range(2)]
    scale, zero = (m.reshape(*r.shape) for m, r in zip(made, call.result))
    return scale, zero


def _quantized(
    call: Call, x: Tensor, scale: Any, zero_point: Any, low: Any, high: Any, axis: int | None = None
) -> Residue:
    """Return x as whole numbers. With an axis, scale and zero point are vectors along it."""
    residue = call.residue(x)
    if residue.infinite:
        raise call.undecided("infinite elements are quantized, which residues do not show")
    step, zero = (_broadcast(call.residue(v), x, axis) for v in (scale, zero_point))
    low, high = (_broadcast(call.residue(limit), x, None) for limit in (low, high))
    scaled = residue / step
    operands = (scaled, zero, low, high)
    # Only functions of parameters are read as exact: rounding data has no error bound, since it may be cut off.
    if not any(o.data for o in operands) and call.point.reads_as_exact([o.parts for o in operands]):
        out = scaled + zero
        units, offset = (_vector(torch.as_tensor(call.value(v)).double(), x, axis) for v in (scale, zero_point))
        made = call.first_result
        whole = made.double() / units + offset if made.dtype.is_floating_point else made.double()
        call.point.steps.append(
            RoundedParameter(call.operator, call.value(x).double(), whole, units, offset, out.parts)
        )
        return out
    rounded = call.uninterpreted([scaled], real=torch.round, name="round", computes=x.dtype)
    return (rounded + zero).maximum(low).minimum(high)


def _fake(
    call: Call, x: Tensor, scale: Any, zero_point: Any, low: int, high: int, axis: int | None = None
) -> tuple[Residue, Residue]:
    q = _quantized(call, x, scale, zero_point, low, high, axis)
    step, zero = (_broadcast(call.residue(v), x, axis) for v in (scale, zero_point))
    mask = call.uninterpreted([call.residue(x) / step, zero], low, high, real=_in_range(low, high), name="in_range")
    return (q - zero) * step, mask


def _in_range(low: int, high: int) -> Any:
    return lambda x, zero: ((x.round() + zero >= low) & (x.round() + zero <= high)).double()


def _broadcast(residue: Residue, x: Tensor, axis: int | None) -> Residue:
    return residue.map(lambda part: _vector(part, x, axis))


def _vector(v: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Return a vector along one axis of x; without an axis, one number, of no dimensions or of one."""
    return v.reshape(() if axis is None else [-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])
