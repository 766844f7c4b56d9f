"""The registry of operator semantics: one rule for each ATen operator, by kind."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

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


RULES: dict[OpOverload, Rule] = {}


def rule(
    kind: RuleKind,
    *operators: OpOverload,
    integers: bool = False,
    booleans: bool = False,
    rewrites: bool = False,
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the semantics of ``operators``."""

    def register(function: RuleFunction) -> RuleFunction:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"{operator} has a rule already")
            RULES[operator] = Rule(kind, function, is_view(operator), integers, booleans or integers, rewrites)
        return function

    return register


def exact(*operators: OpOverload, booleans: bool = False) -> Callable[[RuleFunction], RuleFunction]:
    return rule(RuleKind.EXACT, *operators, booleans=booleans)


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


__all__ = ["RULES", "Call", "Rule", "RuleKind", "branch", "composed", "describe", "exact", "uninterpreted"]
