"""Functions of single elements that round more than their result: approximations, and sums of few terms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import magnitude


@magnitude("add.Tensor sub.Tensor add.Scalar sub.Scalar")
def measure_sum_of_two(out: Tensor, x: Tensor, y: Any, alpha: float = 1) -> Tensor:
    """|α||y| where α is not 1, since that product is rounded, too"""
    return torch.zeros_like(out) if abs(alpha) == 1 else _expand(y, out).abs().mul(abs(alpha))


@magnitude("rsub.Tensor rsub.Scalar")
def measure_difference_of_two(out: Tensor, x: Tensor, y: Any, alpha: float = 1) -> Tensor:
    """|α||x| where α is not 1, since that product is rounded, too"""
    return torch.zeros_like(out) if abs(alpha) == 1 else _expand(x, out).abs().mul(abs(alpha))


def _expand(x: Any, out: Tensor) -> Tensor:
    """Return a tensor or number in the shape of the result."""
    return torch.as_tensor(x, dtype=torch.float64, device=out.device).expand(out.shape)


@magnitude("exp exp2 sigmoid silu mish softplus log_sigmoid_forward sinh cosh")
def measure_exponential(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """|out|·(2 + |x|): exp(x) is 2^(x·log₂e), and that product is rounded"""
    first = out[0] if isinstance(out, tuple) else out
    return first.abs().mul_(x.abs().clamp_max(1e3).add_(2))  # type: ignore[no-any-return]


@magnitude("elu expm1 celu selu log log1p log2 log10 atan2 atan asin acos sin cos asinh acosh atanh erfc")
@magnitude("logaddexp logaddexp2 logit sinc")
def measure_absolute(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """2|out| + 2: implementations differ near the zeros of these, which take expm1 as exp − 1, say"""
    return 2 * out.abs() + 2


@magnitude("xlogy.Tensor xlogy.Scalar_Self xlogy.Scalar_Other")
def measure_xlogy(out: Tensor, x: Any, y: Any) -> Tensor:
    """2|out| + 2|x|: as of the logarithm, times x"""
    return 2 * out.abs() + 2 * _expand(x, out).abs()


@magnitude("gelu")
def measure_gelu(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """2|x|: x/2·(1 + erf) cancels for negative x"""
    return 2 * torch.where(x.isfinite(), x.abs(), 0.0)


@magnitude("erfinv")
def measure_erfinv(out: Tensor, y: Tensor) -> Tensor:
    """2|out| + √π|y|exp(out²): what is rounded of erf(out) − y counts by the derivative, in Newton's method"""
    return torch.where(out.isfinite(), 2 * out.abs() + math.sqrt(math.pi) * y.abs() * out.square().exp(), 0.0)


@magnitude("lgamma")
def measure_lgamma(out: Tensor, x: Tensor) -> Tensor:
    """|x·log|x|| + |x| + 2, of Stirling's series, and |out| + |x·ψ(x)|, of a reflected argument that is rounded"""
    size = torch.where(x == 0, 1.0, x.abs())
    return 2 + size + (size * size.log()).abs() + _finite(out.abs()) + _finite((x * torch.digamma(x)).abs())


@magnitude("digamma")
def measure_digamma(out: Tensor, x: Tensor) -> Tensor:
    """1 + log(|x| + 10) + Σ1/(|x| + k), of recurrence and series, and π|cot πx| + |x|π²/sin²πx, of a reflection"""
    size = x.abs() + (x < 0)
    recurrence = sum((1 / (size + k) for k in range(10)), torch.zeros_like(x))
    sine = torch.sin(math.pi * x)
    reflection = math.pi * (torch.cos(math.pi * x) / sine).abs() + x.abs() * (math.pi / sine).square()
    return 1 + (size + 10).log() + _finite(recurrence) + torch.where(x < 0, _finite(reflection), 0.0)


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)


@magnitude("pow.Tensor_Scalar")
def measure_power(out: Tensor, x: Tensor, exponent: float) -> Tensor:
    """2|out| of small exponents, else |out|·(2 + |y·log x|), of e^(y·log x), whose product is rounded"""
    if exponent in (2, 3, 0.5, -0.5, -1, 1):
        return 2 * out.abs()
    return measure_general_power(out, x, torch.tensor(float(exponent), dtype=torch.float64))


@magnitude("pow.Tensor_Tensor pow.Scalar")
def measure_general_power(out: Tensor, x: Any, y: Any) -> Tensor:
    """|out|·(2 + |y·log x|): of e^(y·log x), whose product is rounded"""
    base, exponent = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y))
    argument = (exponent * torch.where(base > 0, base, 1.0).log()).abs().nan_to_num(0.0).clamp_max(1e3)
    return out.abs() * (2 + argument)


@magnitude("tanh erf rsqrt sqrt div.Tensor div.Scalar reciprocal hardswish hardsigmoid tan hypot deg2rad rad2deg")
@magnitude("nextafter")
def measure_few(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """2|out|: approximations within an ulp or two, or a reciprocal or constant that is rounded and a product"""
    return 2 * out.abs()


@magnitude("addcmul")
def measure_addcmul(out: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    """|x| + 2|v||a||b|: v·a·b is rounded twice"""
    return x.abs() + 2 * (a * b).abs() * abs(value)


@magnitude("addcdiv")
def measure_addcdiv(out: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    """|x| + 2|v||a/b|: v·a/b is rounded twice"""
    return x.abs() + 2 * (a / b).abs() * abs(value)


@magnitude("lerp.Scalar lerp.Tensor")
def measure_lerp(out: Tensor, x: Tensor, end: Tensor, weight: Any) -> Tensor:
    """|x| + 2|w||end − x|: the difference and its product are rounded"""
    step: Tensor = (end - x) * weight
    return x.abs() + 2 * step.abs()
