"""Pointwise functions: uninterpreted, and those that are composed of uninterpreted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow import piecewise
from foldproof.shadow.call import Call
from foldproof.shadow.extremes import read_extreme_of_two
from foldproof.shadow.known import is_nonnegative, is_positive
from foldproof.shadow.registry import RuleKind, branch, composed, rule, uninterpreted
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import Choices

aten = torch.ops.aten


@uninterpreted(
    aten.acos.default,
    aten.acosh.default,
    aten.asin.default,
    aten.asinh.default,
    aten.atan.default,
    aten.atanh.default,
    aten.ceil.default,
    aten.cos.default,
    aten.cosh.default,
    aten.digamma.default,
    aten.erf.default,
    aten.erfc.default,
    aten.erfinv.default,
    aten.exp2.default,
    aten.expm1.default,
    aten.floor.default,
    aten.lgamma.default,
    aten.log.default,
    aten.log10.default,
    aten.log1p.default,
    aten.log2.default,
    aten.sin.default,
    aten.sinc.default,
    aten.sinh.default,
    aten.tan.default,
    aten.tanh.default,
    aten.trunc.default,
)
def pointwise(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """any function of the element and the attributes"""
    attributes = list(call.arguments.values())[1:]
    return call.uninterpreted([x], *attributes, real=lambda t: call.operator(t, *args, **kwargs))


@composed(aten.abs.default)
def absolute(call: Call, x: Tensor) -> Residue:
    """√(x²), with an uninterpreted square root"""
    return call.residue(x).absolute()


@uninterpreted(aten.sgn.default, aten.sign.default)
def sign(call: Call, x: Tensor) -> Residue:
    """any function of the element, the same for both operators"""
    return call.uninterpreted([x], real=torch.sign, name="sign")


@uninterpreted(aten.round.default, aten.round.decimals)
def round_to(call: Call, x: Tensor, *, decimals: int = 0) -> Residue:
    """any function of the element and the number of decimals"""
    if decimals == 0:
        return call.uninterpreted([x], real=torch.round, name="round")
    return call.uninterpreted([x], decimals, real=lambda t: torch.round(t, decimals=decimals), name="round")


@uninterpreted(aten.softshrink.default)
def softshrink(call: Call, x: Tensor, lambd: float = 0.5) -> Any:
    """any function of the element and the attribute"""
    if call.algebraic(x) and lambd >= 0:
        residue, limit, zero = call.residue(x), call.residue(lambd), call.residue(0)
        return (residue - limit).maximum(zero) - (-residue - limit).maximum(zero)
    return pointwise(call, x, lambd)


@uninterpreted(aten.exp.default)
def exp(call: Call, x: Tensor) -> Residue:
    """any function of the element, but exp(-inf) = 0"""
    out = call.uninterpreted([x], real=torch.exp)
    residue = call.residue(x)
    if residue.infinite:
        masked = call.value(x) == -math.inf
        out = out.map(lambda part: torch.where(masked, 0.0, part)).knowing_also(nonnegative=True, masked=True)
    return out


@uninterpreted(
    aten.atan2.default,
    aten.copysign.Scalar,
    aten.copysign.Tensor,
    aten.fmod.Scalar,
    aten.fmod.Tensor,
    aten.heaviside.default,
    aten.hypot.default,
    aten.logaddexp.default,
    aten.logaddexp2.default,
    aten.nextafter.default,
    aten.remainder.Scalar,
    aten.remainder.Tensor,
    aten.xlogy.Scalar_Other,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Tensor,
)
def pointwise_pair(call: Call, a: Any, b: Any) -> Residue:
    """any function of the two elements"""
    return call.uninterpreted([a, b], real=getattr(torch, call.operator.overloadpacket.__name__))


@branch(aten.nan_to_num.default)
def nan_to_num(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """finite elements stay, others become the constants"""
    keep, constants = torch.isfinite(call.value(x)), call.residue(call.result)
    return call.residue(x).map(lambda part, c: torch.where(keep, part, c), constants)


@composed(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(call: Call, a: Any, b: Any, *, rounding_mode: str | None) -> Residue:
    """a·b⁻¹, then uninterpreted rounding"""
    quotient = call.residue(a) / call.residue(b)
    if rounding_mode is None:
        return quotient
    return _rounded(call, quotient, rounding_mode)


def _rounded(call: Call, x: Residue, mode: str) -> Residue:
    return call.uninterpreted([x], real=getattr(torch, mode), name=mode)


@composed(aten.floor_divide.default)
def floor_divide(call: Call, a: Any, b: Any) -> Residue:
    """a·b⁻¹, then an uninterpreted floor"""
    return _rounded(call, call.residue(a) / call.residue(b), "floor")


def _chosen(call: Call, first: Tensor, a: Residue, b: Residue) -> Residue:
    """Return a where ``first`` is true, else b: the value of a piecewise function at these elements.

    Raises:
        Undecided: all elements are in one piece; the result would prove nothing about the other.
    """
    if first.numel() and bool((first == first.flatten()[0]).all()):
        raise call.undecided("all values are in one piece of it")
    call.took_branch()
    return a.map(lambda p, q: torch.where(first, p, q), b)


@composed(aten.relu.default)
def relu(call: Call, x: Tensor) -> Residue:
    """max(x, 0), uninterpreted; of constants, the larger one"""
    residue, value = call.residue(x), call.value(x)
    if call.point.semantics.by_value:
        return _chosen(call, value > 0, residue, residue * call.residue(0))
    return _extreme(call, residue, value, 0, torch.maximum)


@uninterpreted(aten.leaky_relu.default)
def leaky_relu(call: Call, x: Tensor, negative_slope: float = 0.01) -> Any:
    """any function of the element and the slope"""
    if call.point.semantics.by_value:
        residue = call.residue(x)
        return _chosen(call, call.value(x) > 0, residue, residue * call.residue(negative_slope))
    if call.algebraic(x):
        residue, zero = call.residue(x), call.residue(0)
        return residue.maximum(zero) + residue.minimum(zero) * call.residue(negative_slope)
    return pointwise(call, x, negative_slope)


@uninterpreted(aten.elu.default)
def elu(call: Call, x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """any function of the element and the attributes"""
    if call.point.semantics.by_value:
        return _exponential_below(call, x, call.residue(x) * call.residue(input_scale), scale, alpha * scale)
    if call.algebraic(x) and input_scale == 1:
        return _elu(call, x, call.residue(1), scale, alpha * scale)
    return pointwise(call, x, alpha, scale, input_scale)


@uninterpreted(aten.celu.default)
def celu(call: Call, x: Tensor, alpha: float = 1.0) -> Any:
    """any function of the element and the attribute"""
    if call.point.semantics.by_value:
        return _exponential_below(call, x, call.residue(x) / call.residue(alpha), 1, alpha)
    if call.algebraic(x) and alpha > 0:
        return _elu(call, x, call.residue(1) / call.residue(alpha), 1, alpha)
    return pointwise(call, x, alpha)


def _elu(call: Call, x: Tensor, stretch: Residue, slope: float, factor: float) -> Residue:
    """Return slope·max(x, 0) + factor·(exp(stretch·min(x, 0)) - 1)."""
    residue, zero = call.residue(x), call.residue(0)
    below = call.uninterpreted([residue.minimum(zero) * stretch], real=torch.expm1, name="expm1")
    return residue.maximum(zero) * call.residue(slope) + below * call.residue(factor)


def _exponential_below(call: Call, x: Tensor, exponent: Residue, slope: float, factor: float) -> Residue:
    below = call.uninterpreted([exponent], real=torch.expm1, name="expm1") * call.residue(factor)
    return _chosen(call, call.value(x) > 0, call.residue(x) * call.residue(slope), below)


@uninterpreted(aten.hardshrink.default)
def hardshrink(call: Call, x: Tensor, lambd: float = 0.5) -> Any:
    """any function of the element and the attribute"""
    if call.point.semantics.by_value:
        residue = call.residue(x)
        return _chosen(call, call.value(x).abs() <= lambd, residue * call.residue(0), residue)
    if call.algebraic(x):
        residue, zero = call.residue(x), call.residue(0)
        return piecewise.choose(residue.absolute() - call.residue(lambd), residue, zero, zero)
    return pointwise(call, x, lambd)


@uninterpreted(aten.threshold.default)
def threshold(call: Call, x: Tensor, threshold: float, value: float) -> Any:
    """any function of the element and the attributes"""
    if call.point.semantics.by_value:
        residue = call.residue(x)
        constant = call.residue(value).map(lambda part: part.expand(residue.shape))
        return _chosen(call, call.value(x) <= threshold, constant, residue)
    if call.algebraic(x):
        residue, other = call.residue(x), call.stored(value)
        return piecewise.choose(residue - call.residue(threshold), residue, other, other)
    return pointwise(call, x, threshold, value)


@composed(aten.maximum.default, aten.fmax.default)
def maximum(call: Call, a: Tensor, b: Tensor) -> Residue:
    """max(a, b), uninterpreted and symmetric; of two constants, which parameters do not move, the larger one"""
    return _extreme(call, call.residue(a), call.value(a), b, torch.maximum)


@composed(aten.minimum.default, aten.fmin.default)
def minimum(call: Call, a: Tensor, b: Tensor) -> Residue:
    """min(a, b) = -max(-a, -b)"""
    return _extreme(call, call.residue(a), call.value(a), b, torch.minimum)


def _extreme(call: Call, x: Residue, value: Tensor, other: Any, extreme: Callable[[Tensor, Tensor], Tensor]) -> Residue:
    """Return ``torch.maximum`` or ``torch.minimum`` of x, which has this value, and ``other``."""
    call.note_limits()
    y = call.residue(other)
    if x.varies or y.varies or x.infinite or y.infinite:
        if call.operator in (aten.fmax.default, aten.fmin.default) and (x.undefined or y.undefined):
            # fmax(nan, y) is y, so that fmax and fmin do not add up to the sum.
            return x.any_maximum(y) if extreme is torch.maximum else -(-x).any_maximum(-y)
        read = call.point.semantics
        if x.varies and y.varies and read.choices is not Choices.BY_VALUE and not read.algebraic:
            found = read_extreme_of_two(x, y, [value, call.value(other)], extreme is torch.minimum)
            if found is not None:
                return found
        out = x.maximum(y) if extreme is torch.maximum else x.minimum(y)
        return _with_numbers(call, out, [x, y], [value, call.value(other)], extreme) if read.numbers else out
    first = extreme(value, torch.as_tensor(call.value(other), dtype=value.dtype, device=value.device)) == value
    return x.map(lambda p, q: torch.where(first, p, q), y)


def _with_numbers(
    call: Call, out: Residue, operands: list[Residue], values: list[Any], extreme: Callable[[Tensor, Tensor], Tensor]
) -> Residue:
    """Return ``out``, the extreme of two operands, with the extreme by value where both are numbers for all inputs."""
    x, y = operands
    first, second = (torch.as_tensor(value, dtype=torch.float64) for value in values)
    known = call.find_numbers(x, first) & call.find_numbers(y, second)
    larger = extreme(first, second) == first
    found = x.map(lambda p, q, o: torch.where(known, torch.where(larger, p, q), o), y, out)
    return found.signed(is_nonnegative(out), is_positive(out))


@composed(
    aten.clamp.default,
    aten.clamp.Tensor,
    aten.clamp_min.default,
    aten.clamp_min.Tensor,
    aten.clamp_max.default,
    aten.clamp_max.Tensor,
    aten.hardtanh.default,
)
def clamp(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """min(max(x, low), high), with uninterpreted min and max; of constants, the one it is"""
    given = call.arguments
    low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
    out, value = call.residue(x), call.value(x)
    if low is not None and not _is(low, -math.inf):
        out = _extreme(call, out, value, low, torch.maximum)
        value = value.clamp(min=call.value(low))
    if high is not None and not _is(high, math.inf):
        out = _extreme(call, out, value, high, torch.minimum)
    return out


def _is(limit: Any, number: float) -> bool:
    return not isinstance(limit, Tensor) and limit == number


@rule(RuleKind.COMPOSED, aten.ldexp.Tensor, rewrites=True)
def ldexp(x: Tensor, other: Tensor) -> Tensor:
    """x times a power of 2"""
    return x * torch.pow(2.0, other)


@composed(aten.hardsigmoid.default)
def hardsigmoid(call: Call, x: Tensor) -> Residue:
    """clamp(x + 3, 0, 6)/6"""
    return _clamped_shift(call, x) / call.residue(6)


@composed(aten.hardswish.default)
def hardswish(call: Call, x: Tensor) -> Residue:
    """x·clamp(x + 3, 0, 6)/6"""
    return call.residue(x) * _clamped_shift(call, x) / call.residue(6)


def _clamped_shift(call: Call, x: Tensor) -> Residue:
    shifted, value = call.residue(x) + call.residue(3), call.value(x).double() + 3
    above = _extreme(call, shifted, value, 0, torch.maximum)
    return _extreme(call, above, value.clamp(min=0), 6, torch.minimum)


@composed(aten.sigmoid.default)
def sigmoid(call: Call, x: Tensor) -> Residue:
    """1/(1 + exp(-x))"""
    return _sigmoid(call, call.residue(x))


def _sigmoid(call: Call, x: Residue) -> Residue:
    return (call.residue(1) + call.uninterpreted([-x], real=torch.exp, name="exp")).inverse()


@composed(aten.silu.default)
def silu(call: Call, x: Tensor) -> Residue:
    """x·sigmoid(x)"""
    return call.residue(x) * _sigmoid(call, call.residue(x))


@composed(aten.gelu.default)
def gelu(call: Call, x: Tensor, *, approximate: str = "none") -> Residue:
    """x/2·(1 + erf(x/√2)); with tanh, x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))); of the same numbers as PyTorch's"""
    residue, one = call.residue(x), call.residue(1)
    if approximate == "none":
        bent = call.uninterpreted([residue * call.residue(math.sqrt(0.5))], real=torch.erf, name="erf")
    else:
        cube = residue * residue * residue
        inner = (residue + cube * call.residue(0.044715)) * call.residue(math.sqrt(2 / math.pi))
        bent = call.uninterpreted([inner], real=torch.tanh, name="tanh")
    return residue * call.residue(0.5) * (one + bent)


@composed(aten.glu.default)
def glu(call: Call, x: Tensor, dim: int = -1) -> Residue:
    """a·sigmoid(b), for the two halves a, b"""
    a, b = (call.residue(x).map(lambda part, j=j: part.chunk(2, dim)[j]) for j in range(2))
    return a * _sigmoid(call, b)


@composed(aten._prelu_kernel.default)
def prelu(call: Call, x: Tensor, weight: Tensor) -> Residue:
    """max(x, 0) + weight·min(x, 0)"""
    residue, zero = call.residue(x), call.residue(0)
    if call.point.semantics.by_value:
        return _chosen(call, call.value(x) > 0, residue, call.residue(weight) * residue)
    return residue.maximum(zero) + call.residue(weight) * residue.minimum(zero)


@branch(aten.softplus.default)
def softplus(call: Call, x: Tensor, beta: float = 1, threshold: float = 20) -> Residue:
    """log1p(exp(beta·x))/beta, or x where beta·x is above the threshold by value"""
    residue, factor = call.residue(x), call.residue(beta)
    e = call.uninterpreted([residue * factor], real=torch.exp, name="exp")
    soft = call.uninterpreted([e], real=torch.log1p, name="log1p") / factor
    linear = call.value(x) * beta > threshold
    return residue.map(lambda a, b: torch.where(linear, a, b), soft)
