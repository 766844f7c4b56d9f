"""Index expressions of Inductor's loops, as operators on integers and as coefficients of the loop variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value

aten = torch.ops.aten

Index = int | float | Value


@dataclass(frozen=True)
class Affine:
    """An index ``offset`` + Σ ``strides``[k]·(loop variable k)."""

    strides: tuple[int, ...]
    offset: int


def find_affine(expression: Any, variables: Mapping[Any, int]) -> Affine | None:
    """Return the coefficients of an index in the loop variables; None if it is not of that form."""
    if isinstance(expression, int):
        return Affine((0,) * len(variables), expression)
    strides, offset = dict.fromkeys(variables, 0), 0
    for term, number in _expanded(expression).as_coefficients_dict().items():
        if not number.is_Integer:
            return None
        if term in strides:
            strides[term] += int(number)
        elif term == 1:
            offset += int(number)
        else:
            return None
    return Affine(tuple(strides.values()), offset)


def _expanded(expression: Any) -> Any:
    """Multiply out products of sums; that takes time, so only where there may be one."""
    nested = expression.is_Mul or any(a.is_Mul or a.is_Add for a in expression.args)
    return expression.expand() if nested else expression


class Indices:
    """Index expressions as recorded values, over recorded values of their symbols."""

    def __init__(self, recorder: Recorder, symbols: Mapping[Any, Value]) -> None:
        self._recorder = recorder
        self.symbols = dict(symbols)

    def evaluate(self, expression: Any) -> Index:
        """Return the value of an expression.

        Raises:
            Unreadable: it has a function or a symbol without a reading.
        """
        if isinstance(expression, (int, float)):
            return expression
        if expression.is_Symbol:
            if expression not in self.symbols:
                raise Unreadable(f"the size {expression} is not known")
            symbol: Value = self.symbols[expression]
            return symbol
        if expression.is_number and not expression.args:
            return _number(expression)
        made = FUNCTIONS.get(type(expression).__name__)
        if made is None:
            if expression.is_number:
                return _number(expression)
            raise Unreadable(f"no reading of {type(expression).__name__} in an index")
        return made(self._recorder, *(self.evaluate(x) for x in expression.args))


def _number(expression: Any) -> int | float:
    return int(expression) if expression.is_Integer else float(expression)


def _add(recorder: Recorder, a: Index, b: Index) -> Index:
    if isinstance(a, Value):
        return a if isinstance(b, int) and b == 0 else recorder.call(aten.add.Tensor, a, b)
    return _add(recorder, b, a) if isinstance(b, Value) else a + b


def _multiply(recorder: Recorder, a: Index, b: Index) -> Index:
    if isinstance(a, Value):
        return a if isinstance(b, int) and b == 1 else recorder.call(aten.mul.Tensor, a, b)
    return _multiply(recorder, b, a) if isinstance(b, Value) else a * b


def _sum(recorder: Recorder, *terms: Index) -> Index:
    return reduce(lambda a, b: _add(recorder, a, b), terms)


def _product(recorder: Recorder, *factors: Index) -> Index:
    return reduce(lambda a, b: _multiply(recorder, a, b), factors)


def _floor_divide(recorder: Recorder, a: Index, b: Index) -> Index:
    if not (isinstance(a, Value) or isinstance(b, Value)):
        return a // b
    return recorder.call(aten.div.Tensor_mode, as_value(recorder, a), b, rounding_mode="floor")


def _remainder(recorder: Recorder, a: Index, b: Index) -> Index:
    if not (isinstance(a, Value) or isinstance(b, Value)):
        return a % b
    return recorder.call(aten.remainder.Tensor, as_value(recorder, a), as_value(recorder, b))


def _modular(recorder: Recorder, a: Index, divisor: Index, modulus: Index) -> Index:
    return _remainder(recorder, _floor_divide(recorder, a, divisor), modulus)


def _chosen(name: str, plain: Callable[..., Any]) -> Callable[..., Index]:
    def make(recorder: Recorder, *parts: Index) -> Index:
        if not any(isinstance(p, Value) for p in parts):
            found: Index = plain(parts)
            return found
        values = [as_value(recorder, p) for p in parts]
        return reduce(lambda a, b: recorder.call(getattr(aten, name).default, a, b), values)

    return make


def _power(recorder: Recorder, base: Index, exponent: Index) -> Index:
    if isinstance(base, Value):
        if not isinstance(exponent, int) or exponent < 1:
            raise Unreadable("no reading of a quotient in an index")
        return reduce(lambda a, b: recorder.call(aten.mul.Tensor, a, b), [base] * exponent)
    if isinstance(exponent, Value):
        raise Unreadable("no reading of a power of a variable in an index")
    power: int | float = base**exponent
    return power


def _absolute(recorder: Recorder, a: Index) -> Index:
    return recorder.call(aten.abs.default, a) if isinstance(a, Value) else abs(a)


def as_value(recorder: Recorder, x: Index) -> Value:
    """Return a number as a tensor without dimensions."""
    if isinstance(x, Value):
        return x
    dtype = torch.float64 if isinstance(x, float) else torch.int64
    return recorder.call(aten.full.default, [], x, dtype=dtype)


def _same(recorder: Recorder, a: Index) -> Index:
    return a


def _to_float(recorder: Recorder, a: Index) -> Index:
    return recorder.call(aten._to_copy.default, a, dtype=torch.float64) if isinstance(a, Value) else float(a)


def _true_divide(recorder: Recorder, a: Index, b: Index) -> Index:
    if not (isinstance(a, Value) or isinstance(b, Value)):
        return a / b
    first, second = (as_value(recorder, _to_float(recorder, x)) for x in (a, b))
    return recorder.call(aten.div.Tensor, first, second)


def _rounded(name: str, plain: Callable[[float], int]) -> Callable[..., Index]:
    def make(recorder: Recorder, a: Index) -> Index:
        if not isinstance(a, Value):
            return plain(a)
        return recorder.call(aten._to_copy.default, recorder.call(getattr(aten, name).default, a), dtype=torch.int64)

    return make


FUNCTIONS: Mapping[str, Callable[..., Index]] = {
    "Add": _sum,
    "Mul": _product,
    "Pow": _power,
    "PowByNatural": _power,
    "Abs": _absolute,
    "FloorDiv": _floor_divide,
    "CleanDiv": _floor_divide,
    "ModularIndexing": _modular,
    "Mod": _remainder,
    "PythonMod": _remainder,
    "Identity": _same,
    "Min": _chosen("minimum", min),
    "Max": _chosen("maximum", max),
    "ToFloat": _to_float,
    "FloatTrueDiv": _true_divide,
    "IntTrueDiv": _true_divide,
    "TruncToInt": _rounded("trunc", int),
    "FloorToInt": _rounded("floor", math.floor),
    "CeilToInt": _rounded("ceil", math.ceil),
}
"""Readings of sympy's functions and of Inductor's own, by the names of their classes."""
