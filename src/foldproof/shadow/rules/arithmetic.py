"""Pointwise field arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed, exact
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@exact(aten.add.Tensor, aten.add.Scalar, booleans=True)
def add(call: Call, a: Any, b: Any, alpha: float = 1) -> Residue:
    """a + alpha·b"""
    return call.residue(a) + _scaled(call, b, alpha)


@exact(aten.sub.Tensor, aten.sub.Scalar, booleans=True)
def sub(call: Call, a: Any, b: Any, alpha: float = 1) -> Residue:
    """a - alpha·b"""
    return call.residue(a) - _scaled(call, b, alpha)


@exact(aten.rsub.Tensor, aten.rsub.Scalar, booleans=True)
def rsub(call: Call, a: Any, b: Any, alpha: float = 1) -> Residue:
    """b - alpha·a"""
    return call.residue(b) - _scaled(call, a, alpha)


@exact(aten.mul.Tensor, aten.mul.Scalar, booleans=True)
def mul(call: Call, a: Any, b: Any) -> Residue:
    """a·b"""
    return call.residue(a) * call.residue(b)


@exact(aten.div.Tensor, aten.div.Scalar)
def div(call: Call, a: Any, b: Any) -> Residue:
    """a·b⁻¹, with the modular inverse; uninterpreted in b where b depends on the program's input"""
    return call.residue(a) / call.residue(b)


@exact(aten.reciprocal.default)
def reciprocal(call: Call, x: Tensor) -> Residue:
    """the modular inverse; uninterpreted where x depends on the program's input"""
    return call.residue(x).inverse()


@exact(aten.neg.default)
def neg(call: Call, x: Tensor) -> Residue:
    """-x"""
    return -call.residue(x)


@exact(aten.addcmul.default)
def addcmul(call: Call, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Residue:
    """x + value·a·b"""
    return call.residue(x) + call.residue(a) * call.residue(b) * call.residue(value)


@exact(aten.addcdiv.default)
def addcdiv(call: Call, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Residue:
    """x + value·a·b⁻¹"""
    return call.residue(x) + call.residue(a) / call.residue(b) * call.residue(value)


@exact(aten.lerp.Tensor, aten.lerp.Scalar)
def lerp(call: Call, a: Tensor, b: Tensor, weight: Any) -> Residue:
    """a + weight·(b - a)"""
    start = call.residue(a)
    return start + call.stored(weight) * (call.residue(b) - start)


@composed(aten.sqrt.default)
def sqrt(call: Call, x: Tensor) -> Residue:
    """uninterpreted, tied to rsqrt: rsqrt = 1/sqrt"""
    return call.residue(x).sqrt()


@composed(aten.rsqrt.default)
def rsqrt(call: Call, x: Tensor) -> Residue:
    """uninterpreted, tied to sqrt: rsqrt = 1/sqrt"""
    return call.residue(x).rsqrt()


@composed(aten.pow.Tensor_Scalar)
def pow_scalar(call: Call, x: Tensor, exponent: float) -> Residue:
    """whole exponents by multiplication, ±1/2 by sqrt and rsqrt, others uninterpreted"""
    return power(call, call.residue(x), exponent)


def power(call: Call, x: Residue, exponent: float) -> Residue:
    """``x ** exponent`` for a number."""
    if exponent == 0.5:
        return x.sqrt()
    if exponent == -0.5:
        return x.rsqrt()
    if float(exponent).is_integer() and abs(exponent) <= 64:
        whole = x.power(abs(int(exponent)))
        return whole if exponent >= 0 else whole.inverse()
    return call.uninterpreted([x, exponent], real=torch.pow, name="pow")


@composed(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_tensor(call: Call, base: Any, exponent: Any) -> Residue:
    """any function of base and exponent; if the exponent is a constant number, as with pow(x, number)"""
    if isinstance(exponent, Tensor) and type(exponent) is Tensor and exponent.numel() == 1 == len({*exponent.shape, 1}):
        return power(call, call.residue(base), float(exponent)).spread_over(call.residue(exponent))
    return call.uninterpreted([base, exponent], real=torch.pow, name="pow")


def _scaled(call: Call, x: Any, alpha: float) -> Residue:
    return call.residue(x) if alpha == 1 else call.residue(x) * call.residue(alpha)
