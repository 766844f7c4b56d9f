"""Operators that give booleans or indices: ordinary tensors, decided by value.

In the algebraic reading, comparisons and what logical operators make of them are functions with the values 0 and 1. So
they are in the readings that follow no choices by value: a comparison of a and b is an uninterpreted function of a - b.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow import piecewise
from foldproof.shadow.call import Call
from foldproof.shadow.leaves import holds_nan
from foldproof.shadow.registry import branch
from foldproof.shadow.residue import Residue, embed_number

aten = torch.ops.aten

_ACCEPTS: dict[str, Callable[[int], bool]] = {
    "eq": lambda sign: sign == 0,
    "ge": lambda sign: sign >= 0,
    "gt": lambda sign: sign > 0,
    "le": lambda sign: sign <= 0,
    "lt": lambda sign: sign < 0,
    "ne": lambda sign: sign != 0,
}
"""The signs of a - b for which each comparison of a and b holds."""


@branch(
    aten.eq.Scalar,
    aten.eq.Tensor,
    aten.ge.Scalar,
    aten.ge.Tensor,
    aten.gt.Scalar,
    aten.gt.Tensor,
    aten.le.Scalar,
    aten.le.Tensor,
    aten.lt.Scalar,
    aten.lt.Tensor,
    aten.ne.Scalar,
    aten.ne.Tensor,
    booleans=True,
)
def compared(call: Call, a: Any, b: Any) -> Residue | None:
    """an ordinary tensor, as the values are; in readings without choices by value, 0 or 1, a function of a - b"""
    if _asks_for_mask(a, b) or _asks_for_mask(b, a):
        call.follows_values = False  # the same for all inputs
        call.point.settled += 1
        return None
    if isinstance(b, float) and not math.isfinite(b):
        return _asked(call, a, b)
    if _holds_nan(call, a) or _holds_nan(call, b):  # of which every comparison is decided, at all values
        return None
    dtype = torch.result_type(call.value(a), call.value(b))
    left, right = (_converted(call, x, dtype) for x in (a, b))
    name = call.operator.overloadpacket.__name__
    if a is b:
        call.point.asked.setdefault(name)  # for nan, which another way to compute the same may give elsewhere
    given = (left, right) if call.algebraic(left, right) else (a, b)
    holds = _decided(call, name, lambda: left - right, *given)
    if holds is None:
        return None
    return holds if holds.shape == call.result.shape else holds.map(lambda part: part.expand(call.result.shape))


def _decided(call: Call, name: str, make: Callable[[], Residue], *xs: Any) -> Residue | None:
    """Return whether a function of ``xs`` compares so with 0; None where a choice by value is to be followed."""
    if call.comparable(*xs):
        holds: Residue = piecewise.compare(make(), _ACCEPTS[name])
    elif call.decides_as_function(*xs):
        holds = call.uninterpreted([make()], real=lambda x: getattr(torch, name)(x, 0).double(), name=name)
    else:
        return None
    call.point.compared.setdefault(name)
    return holds


def _asked(call: Call, x: Any, *attributes: float) -> Residue | None:
    """Return whether elements are infinite or nan as a function of them, where no choice is to be followed.

    The function depends on the dtype, which sets where values overflow. A program that computes the same number in
    another way may overflow where this one does not, so that the answer is a choice all the same.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    if not (call.comparable(x) or call.decides_as_function(x)):
        return None
    operator = call.operator
    call.point.asked.setdefault(operator.overloadpacket.__name__)
    call.point.compared.setdefault(operator.overloadpacket.__name__)
    return call.uninterpreted([x], *attributes, x.dtype, real=lambda v: operator(v, *attributes).double())


def _asks_for_mask(x: Any, number: Any) -> bool:
    """Return True if a comparison with -inf asks where a mask of constants is, and no other infinity gets into x.

    Comparisons with +inf ask for overflows, as do those of float16, whose scores overflow.
    """
    if not isinstance(number, float) or number != -math.inf or not hasattr(x, "residue"):
        return False
    return x.dtype is not torch.float16 and bool(x.residue.masked_real)


def _holds_nan(call: Call, x: Any) -> bool:
    """True if an element is a nan of a constant."""
    residue = getattr(x, "residue", None)
    if isinstance(residue, Residue):
        return holds_nan(call.value(x), residue)
    return bool(torch.as_tensor(x).isnan().any())


def _converted(call: Call, x: Any, dtype: torch.dtype) -> Residue:
    """Return the residue of an operand, a number as ``dtype`` holds it: bfloat16 compares with 0.1 rounded to it."""
    if not dtype.is_floating_point or hasattr(x, "residue"):
        return call.residue(x)
    return call.residue(torch.as_tensor(x).to(dtype) if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype))


_CONNECTIVES: dict[str, Callable[[Residue, Residue], Residue]] = {
    "and": lambda a, b: a * b,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: a + b - a * b - a * b,
}


@branch(
    aten.__and__.Tensor,
    aten.__or__.Tensor,
    aten.__xor__.Tensor,
    aten.bitwise_and.Tensor,
    aten.bitwise_not.default,
    aten.bitwise_or.Tensor,
    aten.bitwise_xor.Tensor,
    aten.logical_and.default,
    aten.logical_not.default,
    aten.logical_or.default,
    aten.logical_xor.default,
    booleans=True,
)
def connected(call: Call, *args: Tensor) -> Residue | None:
    """an ordinary tensor, as the values are; in readings without choices by value, sums and products of 0 and 1"""
    if not all(isinstance(x, Tensor) and x.dtype is torch.bool for x in args):
        return None
    if not (call.algebraic(*args) or call.decides_as_function(*args)):
        return None
    read = call.residues(args)
    if len(read) == 1:
        return embed_number(call.point, 1) - read[0]
    return _CONNECTIVES[call.operator.overloadpacket.__name__.strip("_").split("_")[-1]](*read)


@branch(
    aten.all.default, aten.all.dim, aten.all.dims, aten.any.default, aten.any.dim, aten.any.dims, booleans=True
)  # fmt: skip
def every_or_some(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue | None:
    """an ordinary tensor, as the values are; in readings without choices by value, a function of how many hold"""
    if x.dtype is not torch.bool or not hasattr(x, "residue"):
        return None
    residue, given = call.residue(x), call.arguments
    dim = given.get("dim")
    dims = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if not dims and x.ndim:  # an empty list of dimensions leaves all as they are
        return residue.map(lambda part: part.clone())
    name = call.operator.overloadpacket.__name__
    wanted = 0 if name == "any" else math.prod(x.shape[d] for d in dims) if x.ndim else 1

    def surplus() -> Residue:
        count = residue.sum(dims, bool(given.get("keepdim", False))) if x.ndim else residue
        return count - call.residue(wanted)

    return _decided(call, "ne" if name == "any" else "eq", surplus, x)


@branch(aten.isinf.default, aten.isnan.default, booleans=True)
def told_apart(call: Call, x: Tensor) -> Residue | None:
    """an ordinary tensor, as the values are; in readings without choices by value, 0 or 1, a function of the element"""
    return _asked(call, x)


@branch(
    aten.argmax.default,
    aten.argmin.default,
    aten.bucketize.Scalar,
    aten.bucketize.Tensor,
    aten.count_nonzero.default,
    aten.count_nonzero.dim_IntList,
    aten.isin.Tensor_Scalar,
    aten.isin.Tensor_Tensor,
    aten.isneginf.default,
    aten.isposinf.default,
    aten.nonzero.default,
    aten.nonzero_static.default,
    aten.searchsorted.Scalar,
    aten.searchsorted.Tensor,
    aten.signbit.default,
)
def decided_by_value(call: Call, *args: Any, **kwargs: Any) -> None:
    """an ordinary tensor, as the values are"""


@branch(aten.histc.default)
def counted_by_value(call: Call, *args: Any, **kwargs: Any) -> Residue:
    """counts, as the values are"""
    return call.residue(call.result)
