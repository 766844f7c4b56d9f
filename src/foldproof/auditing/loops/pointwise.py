"""Pointwise operations of Inductor's loops as ATen operators.

Inductor's types are explicit: operands have been converted where an operation is reached. Numbers stay numbers where
the operator takes them, so that they are rounded as in the graph that was lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from foldproof.auditing.loops.recorder import Literal, Operand, Recorder, Unreadable, Value, expand
from foldproof.torch_internals import OpOverload

aten = torch.ops.aten

SAME_NAME = """
    abs exp exp2 expm1 sqrt relu cos sin tan cosh sinh tanh acos acosh asin asinh atan atanh erf erfc erfinv
    lgamma digamma i0 log log2 log10 log1p rsqrt sigmoid signbit isinf isnan round floor ceil trunc sign neg
    reciprocal logical_not bitwise_not square atan2 hypot nextafter minimum maximum logical_and
    logical_or logical_xor igamma igammac
"""
SPECIAL = """
    airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 erfcx i0e i1 i1e log_ndtr modified_bessel_i0
    modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 ndtri scaled_modified_bessel_k0
    scaled_modified_bessel_k1 spherical_bessel_j0 zeta chebyshev_polynomial_t chebyshev_polynomial_u
    chebyshev_polynomial_v chebyshev_polynomial_w legendre_polynomial_p shifted_chebyshev_polynomial_t
    shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w
    hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l
"""

OPERATORS: Mapping[str, OpOverload] = {
    **{name: getattr(aten, name).default for name in SAME_NAME.split()},
    **{name: getattr(aten, f"special_{name}").default for name in SPECIAL.split()},
    "add": aten.add.Tensor,
    "sub": aten.sub.Tensor,
    "mul": aten.mul.Tensor,
    "mul_rn": aten.mul.Tensor,
    "truediv": aten.div.Tensor,
    "int_truediv": aten.div.Tensor,
    "div_rn": aten.div.Tensor,
    "mod": aten.fmod.Tensor,
    "fmod": aten.fmod.Tensor,
    "remainder": aten.remainder.Tensor,
    "pow": aten.pow.Tensor_Tensor,
    "ldexp": aten.ldexp.Tensor,
    "copysign": aten.copysign.Tensor,
    "eq": aten.eq.Tensor,
    "ne": aten.ne.Tensor,
    "lt": aten.lt.Tensor,
    "le": aten.le.Tensor,
    "gt": aten.gt.Tensor,
    "ge": aten.ge.Tensor,
    "where": aten.where.self,
    "and_": aten.bitwise_and.Tensor,
    "or_": aten.bitwise_or.Tensor,
    "xor": aten.bitwise_xor.Tensor,
    "bitwise_and": aten.bitwise_and.Tensor,
    "bitwise_or": aten.bitwise_or.Tensor,
    "bitwise_xor": aten.bitwise_xor.Tensor,
    "lshift": aten.bitwise_left_shift.Tensor,
    "rshift": aten.bitwise_right_shift.Tensor,
    "bitwise_left_shift": aten.bitwise_left_shift.Tensor,
    "bitwise_right_shift": aten.bitwise_right_shift.Tensor,
    "gammainc": aten.igamma.default,
    "gammaincc": aten.igammac.default,
}
"""Operators on tensors."""

WITH_NUMBER: Mapping[str, OpOverload] = {
    "add": aten.add.Tensor,
    "sub": aten.sub.Tensor,
    "mul": aten.mul.Tensor,
    "mul_rn": aten.mul.Tensor,
    "truediv": aten.div.Tensor,
    "int_truediv": aten.div.Tensor,
    "div_rn": aten.div.Tensor,
    "minimum": aten.clamp_max.default,
    "maximum": aten.clamp_min.default,
    "mod": aten.fmod.Scalar,
    "fmod": aten.fmod.Scalar,
    "remainder": aten.remainder.Scalar,
    "pow": aten.pow.Tensor_Scalar,
    "eq": aten.eq.Scalar,
    "ne": aten.ne.Scalar,
    "lt": aten.lt.Scalar,
    "le": aten.le.Scalar,
    "gt": aten.gt.Scalar,
    "ge": aten.ge.Scalar,
}
"""Operators whose second operand is a number."""

SWAPPED = {
    **{name: name for name in ("add", "mul", "mul_rn", "minimum", "maximum", "eq", "ne")},
    "lt": "gt",
    "gt": "lt",
    "le": "ge",
    "ge": "le",
}
"""Operations that give the same with swapped operands, and their names then."""

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "and_": "&",
    "or_": "|",
    "xor": "^",
    "bitwise_and": "&",
    "bitwise_or": "|",
}


def apply_pointwise(recorder: Recorder, name: str, operands: tuple[Operand, ...], rank: int) -> Value:
    """Record a pointwise operation of Inductor's.

    Raises:
        Unreadable: there is no operator for it.
    """
    text = _write(name, operands)
    special = SPELLED.get(name)
    if special is not None:
        return special(recorder, [as_tensor(recorder, x, rank) for x in operands], text)  # type: ignore[no-any-return]
    if name == "polygamma":
        return _polygamma(recorder, operands, rank, text)
    if name not in OPERATORS:
        raise Unreadable(f"no reading of the operation {name}")
    if len(operands) == 2:
        first, second = operands
        if isinstance(first, Literal) and isinstance(second, Value) and name in SWAPPED:
            name, first, second = SWAPPED[name], second, first
        if isinstance(first, Value) and isinstance(second, Literal) and name in WITH_NUMBER:
            if _takes(first.example.dtype, second):
                return recorder.call(WITH_NUMBER[name], first, second.number, text=text)
        if name == "sub" and isinstance(first, Literal) and isinstance(second, Value):
            if _takes(second.example.dtype, first):
                return recorder.call(aten.rsub.Scalar, second, first.number, text=text)
        if name == "pow" and isinstance(first, Literal) and isinstance(second, Value):
            if _takes(second.example.dtype, first):
                return recorder.call(aten.pow.Scalar, first.number, second, text=text)
        operands = first, second
    if name == "where":
        condition, first, second = operands
        chosen = as_tensor(recorder, condition, rank)
        if isinstance(first, Value) and isinstance(second, Literal) and _takes(first.example.dtype, second):
            return recorder.call(aten.where.ScalarOther, chosen, first, second.number, text=text)
        if isinstance(second, Value) and isinstance(first, Literal) and _takes(second.example.dtype, first):
            return recorder.call(aten.where.ScalarSelf, chosen, first.number, second, text=text)
    tensors = [as_tensor(recorder, x, rank) for x in operands]
    if name in EXTREMES:
        return _find_extreme(recorder, name, tensors, text)
    return recorder.call(OPERATORS[name], *tensors, text=text)


EXTREMES = {"maximum": aten.amax.default, "minimum": aten.amin.default}


def _find_extreme(recorder: Recorder, name: str, operands: list[Value], text: str) -> Value:
    """Record the larger of two values; of more than two, as by an unrolled reduction, the largest of all.

    That is the same number, and nan if one is nan. A proof then follows the choice among all of them at once, as it
    does for the reduction in the graph that was lowered.
    """
    terms = tuple(t for x in operands for t in recorder.chains.get((name, x.node), (x,)))
    pair = recorder.call(OPERATORS[name], *operands, text=text)
    if len(terms) == 2 or not pair.example.dtype.is_floating_point:
        made = pair
    else:
        shape = list(pair.example.shape)
        stacked = recorder.call(aten.stack.default, [expand(recorder, t, shape) for t in terms], -1)
        made = recorder.call(EXTREMES[name], stacked, [-1], text=text)
    recorder.chains[name, made.node] = terms
    return made


def _takes(dtype: torch.dtype, number: Literal) -> bool:
    """True if the operator on a tensor of this dtype and the number computes in that dtype."""
    return dtype == number.dtype or (dtype.is_floating_point and number.dtype.is_floating_point)


def as_tensor(recorder: Recorder, x: Operand, rank: int) -> Value:
    """Return a number as a tensor of its dtype, with dimensions of size 1."""
    if isinstance(x, Value):
        return x
    return recorder.call(aten.full.default, [1] * rank, x.number, dtype=x.dtype, text=x.text)


def _write(name: str, operands: tuple[Operand, ...]) -> str:
    texts = [x.text for x in operands]
    if name in INFIX and len(texts) == 2:
        return f"({texts[0]} {INFIX[name]} {texts[1]})"
    return f"{name}({', '.join(texts)})"


def _fused(recorder: Recorder, xs: list[Value], text: str) -> Value:
    return recorder.call(aten.add.Tensor, recorder.call(aten.mul.Tensor, xs[0], xs[1]), xs[2], text=text)


def _divided(mode: str) -> Any:
    return lambda recorder, xs, text: recorder.call(aten.div.Tensor_mode, *xs, rounding_mode=mode, text=text)


def _normal(recorder: Recorder, xs: list[Value], text: str) -> Value:
    """The distribution function of the normal distribution."""
    scaled = recorder.call(aten.mul.Tensor, xs[0], -(0.5**0.5))
    return recorder.call(aten.mul.Tensor, recorder.call(aten.erfc.default, scaled), 0.5, text=text)


def _polygamma(recorder: Recorder, operands: tuple[Operand, ...], rank: int, text: str) -> Value:
    """The derivative, of an order that is a number, of the digamma function."""
    order, x = operands
    if not isinstance(order, Literal) or order.number != int(order.number):
        raise Unreadable("no reading of polygamma of an order that is no number")
    return recorder.call(aten.polygamma.default, int(order.number), as_tensor(recorder, x, rank), text=text)


def _same(recorder: Recorder, xs: list[Value], text: str) -> Value:
    return xs[0]


SPELLED: Mapping[str, Any] = {
    "fma": _fused,
    "floordiv": _divided("floor"),
    "truncdiv": _divided("trunc"),
    "ndtr": _normal,
    "identity": _same,
}
"""Operations that are several operators, or one with an option."""
