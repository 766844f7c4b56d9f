"""New constants as expressions over the program's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from torch import Tensor

Operand = Union["Expression", str, int, float, None]
"""What a function is applied to: another expression, a parameter by its name, a number, or nothing."""


@dataclass(frozen=True)
class Expression:
    """``function(*operands)``, a tensor computed from parameters that are given by name when it is called.

    The same arithmetic runs on float64 tensors, for the value, and on shadows, for the proof; so ``function`` is made
    of ordinary torch operators. Equal expressions are equal objects: where two folds need the same constant they can
    share one.
    """

    function: Callable[..., Tensor]
    operands: tuple[Operand, ...]

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.function(*(_value(operand, parameters) for operand in self.operands))

    def reads(self) -> Iterator[str]:
        """Names of the parameters it needs, some perhaps more than once."""
        for operand in self.operands:
            if isinstance(operand, Expression):
                yield from operand.reads()
            elif isinstance(operand, str):
                yield operand

    def substitute(self, known: Mapping[str, Expression]) -> Expression:
        """The same with each parameter that is itself an expression (a constant folded before) written out."""
        if not any(name in known for name in self.reads()):
            return self
        return Expression(self.function, tuple(_substituted(operand, known) for operand in self.operands))


def _value(operand: Operand, parameters: Mapping[str, Tensor]) -> Tensor | float | None:
    if isinstance(operand, Expression):
        return operand(parameters)
    return parameters[operand] if isinstance(operand, str) else operand


def _substituted(operand: Operand, known: Mapping[str, Expression]) -> Operand:
    if isinstance(operand, Expression):
        return operand.substitute(known)
    return known.get(operand, operand) if isinstance(operand, str) else operand
