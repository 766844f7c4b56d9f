"""The rounding of each operator: every operator with a rule in `foldproof.shadow` has one of four answers.

An answer bounds the difference of a result in the operator's own dtype from the exact one, for PyTorch's own kernels
or a compiler's. The verdict names operators without an answer, and does not say REFUTED there.
"""

from __future__ import annotations

from enum import Enum
from functools import cache

from foldproof.operators import find_functional_form, is_pointwise, is_view, is_view_copy, reshapes_in_place
from foldproof.rounding.exact import EXACT, RESULTS, UNKNOWN
from foldproof.rounding.magnitudes import MAGNITUDES
from foldproof.rounding.parts import PARTS
from foldproof.torch_internals import OpOverload


class Rounding(str, Enum):
    """The kind of an operator's rounding; `MEANINGS` explains each."""

    EXACT = "exact"
    RESULT = "result"
    MAGNITUDE = "magnitude"
    PARTS = "parts"

    def __str__(self) -> str:
        return self.value


MEANINGS = {
    Rounding.EXACT: "nothing: it selects, moves or negates numbers, or gives integers and booleans",
    Rounding.RESULT: "elements of the result that its dtype does not hold, once",
    Rounding.MAGNITUDE: "elements of the result; errors inside add up to the unit roundoff times the named magnitude",
    Rounding.PARTS: "the results of the operators that it is made of, which are named",
}


@cache
def find_rounding(operator: OpOverload) -> Rounding | None:
    """Return the rounding of the operator; None if it is unknown.

    Pointwise operators round their result unless another answer is given for them. In-place operators round like their
    functional forms.
    """
    if reshapes_in_place(operator):
        return Rounding.EXACT
    form = find_functional_form(operator)
    if form is not None:
        return find_rounding(form.operator)
    if operator in EXACT or is_view(operator) or is_view_copy(operator):
        return Rounding.EXACT
    if operator in MAGNITUDES:
        return Rounding.MAGNITUDE
    if operator in PARTS:
        return Rounding.PARTS
    if operator in RESULTS or (is_pointwise(operator) and operator not in UNKNOWN):
        return Rounding.RESULT
    return None


def is_exact(operator: OpOverload) -> bool:
    """True if the operator rounds nothing."""
    return find_rounding(operator) is Rounding.EXACT


def describe_rounding(operator: OpOverload) -> str:
    """Return the answer in a few words, for documentation: ``magnitude: Σ|a||b|``."""
    found = find_rounding(operator)
    if found is None:
        return "not known"
    function = MAGNITUDES.get(operator) or PARTS.get(operator)
    doc = (function.__doc__ or "").strip().splitlines() if function is not None else []
    return f"{found}: {doc[0]}" if doc else str(found)
