"""New constants as expressions over the program's parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Union

import torch
from torch import Tensor, nn

from foldproof.rounding import Float64

Operand = Union["Expression", str, int, float, tuple[int, ...], None]
"""An operand of a function: another expression, the name of a parameter, plain numbers, or nothing."""

# Elements computed at a time: float64 copies that fit in the cache take a third of the time of large ones.
_BLOCK = 1 << 15


@dataclass(frozen=True)
class Expression:
    """``function(*operands)``, a tensor computed from named parameters, which are given when it is evaluated.

    The same arithmetic runs on float64 tensors, for the value, and on shadows, for the proof; so ``function`` consists
    of ordinary torch operators. Equal expressions compare equal, so that folds with the same constant share it.

    ``rowwise`` promises that the operands are tensors and that row i of the result, along axis 0, is the function of
    their rows i; the result has the shape of the first. ``arranges`` promises that each number of the result is one of
    its operands', or 0, so that there is nothing to compute in float64.
    """

    function: Callable[..., Tensor]
    operands: tuple[Operand, ...]
    rowwise: bool = False
    arranges: bool = False

    def in_float64(self) -> bool:
        """True if every operator in it computes float64 results of float64 operands; none asks for another dtype."""
        inner = all(operand.in_float64() for operand in self.operands if isinstance(operand, Expression))
        return inner and not getattr(self.function, "may_narrow", False)

    def reads(self) -> Iterator[str]:
        """Yield the names of the parameters it needs, some perhaps more than once."""
        for operand in self.operands:
            if isinstance(operand, Expression):
                yield from operand.reads()
            elif isinstance(operand, str):
                yield operand

    def substitute(self, known: Mapping[str, Expression]) -> Expression:
        """Return the expression with every parameter that is itself an expression (an earlier fold's) written out."""
        if not any(name in known for name in self.reads()):
            return self
        return replace(self, operands=tuple(_substituted(operand, known) for operand in self.operands))


@dataclass(frozen=True)
class OwnArithmetic:
    """An expression over whole numbers, ``reads``, as a function of them; its operators compute in their own dtypes."""

    expression: Expression
    reads: tuple[str, ...]

    def __call__(self, *given: Tensor) -> Tensor:
        return evaluate({"": self.expression}, dict(zip(self.reads, given, strict=True)).__getitem__)[""]


def as_expression(operand: Operand) -> Expression:
    """Return a parameter as an expression."""
    return operand if isinstance(operand, Expression) else Expression(_itself, (operand,))


def _itself(x: Tensor) -> Tensor:
    return x


Parameter = Callable[[str], Tensor]
Value = Tensor | float | tuple[int, ...] | None


def evaluate(expressions: Mapping[str, Expression], parameter: Parameter) -> dict[str, Tensor]:
    """Compute the values of named expressions from ``parameter``'s tensors; common parts are computed once."""
    values: dict[Expression, Tensor] = {}
    for expression in expressions.values():
        _value(expression, parameter, values)
    return {name: values[expression] for name, expression in expressions.items()}


def _value(operand: Operand, parameter: Parameter, known: dict[Expression, Tensor]) -> Value:
    if isinstance(operand, str):
        return parameter(operand)
    if not isinstance(operand, Expression):
        return operand
    if operand not in known:
        known[operand] = operand.function(*(_value(x, parameter, known) for x in operand.operands))
    return known[operand]


@dataclass(frozen=True)
class Derived(Mapping[str, Tensor]):
    """Values of named expressions on float64 tensors, or on shadows, which bring their own arithmetic.

    Each is computed when it is read: float64 values of all parameters at once would take the memory of a proof.
    """

    expressions: Mapping[str, Expression]
    parameters: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        expression = self.expressions[name]
        given = {read: self.parameters[read] for read in expression.reads()}
        if any(type(x) not in (Tensor, nn.Parameter) for x in given.values()):
            return evaluate({name: expression}, given.__getitem__)[name]
        with _precisely([expression]):
            return evaluate({name: expression}, lambda read: _wide(given[read]))[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.expressions)

    def __len__(self) -> int:
        return len(self.expressions)


def rounded(expression: Expression, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Return the value on the CPU (not every device has float64), computed in float64 and rounded once to ``dtype``."""
    given = {name: parameters[name].cpu() for name in expression.reads()}
    if not expression.rowwise:
        return computed(expression, given, dtype)
    operands = [_unrounded(operand, given, dtype) for operand in expression.operands]
    result = torch.empty_like(operands[0], dtype=dtype)
    rows = max(1, _BLOCK * len(result) // max(1, result.numel()))
    for part, *pieces in zip(result.split(rows), *(operand.split(rows) for operand in operands), strict=True):
        part.copy_(expression.function(*(piece.double() for piece in pieces)))
    return result


def computed(expression: Expression, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Return the value of `rounded` on the parameters' device and in one piece, so that it can be traced."""
    return _unrounded(expression, parameters, dtype).to(dtype)


def _unrounded(operand: Operand, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The float64 value, or one in ``dtype`` where nothing new is computed."""
    if isinstance(operand, str):
        return parameters[operand]
    assert isinstance(operand, Expression)
    if isinstance(operand.function, OwnArithmetic):
        return operand.function(*(_value(x, parameters.__getitem__, {}) for x in operand.operands))  # type: ignore[arg-type]
    if operand.arranges:
        given = [
            _unrounded(x, parameters, dtype).to(dtype) if isinstance(x, (Expression, str)) else x
            for x in operand.operands
        ]
        return operand.function(*given)
    with _precisely([operand]):
        return evaluate({"": operand}, lambda name: _wide(parameters[name]))[""]


def _precisely(expressions: Iterable[Expression]) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if all(expression.in_float64() for expression in expressions) else Float64()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64) if tensor.is_floating_point() else tensor


def _substituted(operand: Operand, known: Mapping[str, Expression]) -> Operand:
    if isinstance(operand, Expression):
        return operand.substitute(known)
    return known.get(operand, operand) if isinstance(operand, str) else operand
