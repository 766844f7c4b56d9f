"""The registry of operator semantics: one rule for each ATen operator, by kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from foldproof.operators import is_view
from foldproof.torch_internals import OpOverload

if TYPE_CHECKING:
    from foldproof.shadow.call import Call


class RuleKind(str, Enum):
    """The semantics of an operator over a finite field."""

    EXACT = "exact"
    """field arithmetic, or selecting and rearranging: the residue of the result is the result of the residues"""
    COMPOSED = "composed"
    """built from exact and uninterpreted ones, so that fused and decomposed forms agree"""
    UNINTERPRETED = "uninterpreted"
    """any function will do: equal operands and attributes give equal results, nothing else is assumed"""
    BRANCH = "branch"
    """the residue follows the choice that the value made; the proof holds for that choice only"""

    def __str__(self) -> str:
        return self.value


RuleFunction = Callable[..., Any]
F = TypeVar("F", bound=RuleFunction)


class Rule(NamedTuple):
    """The semantics of one operator: ``function(call, *args, **kwargs)`` returns the `Residue` of each tensor result.

    None in place of a residue makes the result an ordinary tensor (indices, masks).
    """

    kind: RuleKind
    function: RuleFunction
    view: bool = False
    integers: bool = False
    """True if the rule holds for integer tensors with residues, too: it selects, rearranges, or keeps their range."""
    booleans: bool = False
    """True if the rule holds for booleans that are functions of the program's values, as comparisons are in the
    algebraic reading; other operators get them as ordinary tensors."""
    rewrites: bool = False
    """True if the rule runs other operators on the shadows: ``function(*args, **kwargs)`` returns the results."""
    complex: bool = False
    """True if the rule holds for complex numbers, too: it selects or rearranges elements."""


RULES: dict[OpOverload, Rule] = {}

COMPLEX: dict[OpOverload, RuleFunction] = {}
"""The operators on complex numbers, by operators on their real and imaginary parts; see `foldproof.shadow.complex`.

``function(call, *args, **kwargs)`` returns a `Residue`, a result with or without one, or NotImplemented.
"""


def rule(
    kind: RuleKind,
    *operators: OpOverload,
    integers: bool = False,
    booleans: bool = False,
    rewrites: bool = False,
    complex: bool = False,
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the semantics of ``operators``."""

    def register(function: RuleFunction) -> RuleFunction:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"{operator} has a rule already")
            RULES[operator] = Rule(kind, function, is_view(operator), integers, booleans or integers, rewrites, complex)
        return function

    return register


def exact(
    *operators: OpOverload, booleans: bool = False, complex: bool = False
) -> Callable[[RuleFunction], RuleFunction]:
    return rule(RuleKind.EXACT, *operators, booleans=booleans, complex=complex)


def complex_rule(*operators: OpOverload) -> Callable[[F], F]:
    """Register the decorated function as the meaning of ``operators`` where complex numbers are involved.

    ``function(*args, **kwargs)`` returns the result, made of other operators.
    """

    def register(function: F) -> F:
        @functools.wraps(function)
        def without_call(call: Call, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        complex_residues(*operators)(without_call)
        return function

    return register


def complex_residues(*operators: OpOverload) -> Callable[[F], F]:
    """Register a function for the same, which returns the residue of the result: ``function(call, *args, **kwargs)``.

    It returns NotImplemented where the operator is to be read as a whole.
    """

    def register(function: F) -> F:
        for operator in operators:
            if operator in COMPLEX:
                raise ValueError(f"{operator} has a complex rule already")
            COMPLEX[operator] = function
        return function

    return register


def composed(*operators: OpOverload) -> Callable[[RuleFunction], RuleFunction]:
    return rule(RuleKind.COMPOSED, *operators)


def uninterpreted(*operators: OpOverload) -> Callable[[RuleFunction], RuleFunction]:
    return rule(RuleKind.UNINTERPRETED, *operators)


def branch(*operators: OpOverload, booleans: bool = False) -> Callable[[RuleFunction], RuleFunction]:
    return rule(RuleKind.BRANCH, *operators, booleans=booleans)


def describe(rule: Rule) -> str:
    """Return the rule's line of documentation."""
    doc = (rule.function.__doc__ or "").strip().splitlines()
    return doc[0] if doc else ""


__all__ = [
    "COMPLEX",
    "RULES",
    "Call",
    "Rule",
    "RuleKind",
    "branch",
    "complex_residues",
    "complex_rule",
    "composed",
    "describe",
    "exact",
    "uninterpreted",
]
