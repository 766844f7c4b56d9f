"""One operator call on shadows, from a rule's point of view."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.operators import bind_arguments, is_view
from foldproof.shadow.leaves import embed_constant, embed_exactly, holds_nan, overflows
from foldproof.shadow.normal_forms import NORMAL_FORMS, NORMAL_FORMS_OF_TWO
from foldproof.shadow.residue import Residue, apply_uninterpreted, embed_number, pointwise
from foldproof.shadow.sample import Choices, SamplePoint
from foldproof.shadow.undecided import Undecided
from foldproof.thresholds import MAX_LIMIT_ELEMENTS
from foldproof.torch_internals import OpOverload, tree_iter, tree_map

# Integers that wrap around or saturate within the range of ordinary numbers.
_NARROW = (torch.int8, torch.uint8, torch.int16)

# The dtypes that operators compute in, which identify an uninterpreted rounding (at::opmath_type).
_COMPUTE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


OVERFLOWN = "an element overflows at the given inputs beside infinite ones, as if it were masked"

_SELECTING_NAMES = """
    where masked_fill constant_pad_nd fill full_like cat stack copy clone _to_copy index index_select gather repeat
    slice_scatter select_scatter flip roll lift_fresh_copy reshape _unsafe_view
"""
_SELECTING = frozenset(_SELECTING_NAMES.split())
"""Operators, besides views, whose results hold elements of operands as they are."""


class Call:
    """An operator call: its sample point, its arguments (shadows, tensors, numbers), and its returned value."""

    def __init__(
        self, point: SamplePoint, operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        self.point, self.operator, self.args, self.kwargs, self.result = point, operator, args, kwargs, result
        self.follows_values = True
        """False if the rule of a branching operator has made no choice by value."""

    def residue(self, x: Any) -> Residue:
        """Return the residue of a shadow, or the exact residues of an ordinary tensor or number.

        In the algebraic reading, a number is the one that kernels compute with: PyTorch rounds it to the dtype of the
        computation. The other readings take it as it stands, as do passes that compute in float64.
        """
        if isinstance(x, Residue):
            return x
        semantics = self.point.semantics
        if isinstance(x, float) and math.isfinite(x) and (semantics.algebraic or semantics.constants is not None):
            dtype = self._computed_in
            return embed_number(self.point, float(torch.tensor(x, dtype=dtype)) if semantics.algebraic else x, dtype)
        if isinstance(x, nn.Parameter) and not hasattr(x, "residue"):
            self.point.unregistered.setdefault(f"a parameter of shape {tuple(x.shape)} that no program registers")
        known = getattr(x, "residue", None)
        found = known if isinstance(known, Residue) else embed_constant(self.point, x)
        if found.infinite and not self.selects:
            value = torch.as_tensor(value_of(x))
            if holds_nan(value, found):
                raise self.undecided("a constant is nan")
            if overflows(value, found):
                raise self.undecided(OVERFLOWN)
        return found

    @property
    def selects(self) -> bool:
        """True if the operator only selects and rearranges elements, so that a nan stays one of the constants."""
        return self.operator.overloadpacket.__name__ in _SELECTING or is_view(self.operator)

    @property
    def _computed_in(self) -> torch.dtype:
        """The dtype to which PyTorch rounds numbers before it computes with them."""
        tensors = [t for t in (self.first_result, *tree_iter((self.args, self.kwargs))) if isinstance(t, Tensor)]
        dtype = next((t.dtype for t in tensors if t.dtype.is_floating_point), torch.float64)
        return _COMPUTE.get(dtype, dtype)

    def find_numbers(self, residue: Residue, value: Tensor) -> Tensor:
        """Return where ``residue`` is the number that it is here, ``value`` in float64, for all that is varied.

        While parameters are held, so is a channel whose weights are all 0, although the tensor that it is in varies. An
        element is a polynomial. If its residues at a random point are those of its value here, it is this number, but
        for a chance that is counted like that of any other comparison.
        """
        point = self.point
        found = torch.isfinite(value)
        if residue.infinite:
            return torch.zeros_like(found)
        number = embed_exactly(point, torch.where(found, value, 0.0))
        for part, own in zip(residue.parts, number.parts):
            found &= part == own
        point.observe(residue.size)
        point.observe(number.size)
        point.tests += found.numel()
        return found

    def stored(self, number: Any) -> Residue:
        """Return the residue of a number that the operator writes into a tensor, rounded to the result's dtype."""
        if isinstance(number, Tensor):
            return self.residue(number)
        return embed_constant(self.point, torch.tensor(number, dtype=self.first_result.dtype))

    def residues(self, xs: Sequence[Any]) -> list[Residue]:
        return [self.residue(x) for x in xs]

    def value(self, x: Any) -> Any:
        """Return the program's own view of ``x``: values in place of shadows, also in containers."""
        return tree_map(value_of, x)

    def uninterpreted(
        self,
        operands: Sequence[Any],
        *attributes: object,
        real: Callable[..., Tensor],
        name: str | None = None,
        computes: torch.dtype | None = None,
    ) -> Residue:
        """Apply the uninterpreted function of the operator, its attributes, and the dtype that it computes in.

        ``computes`` is that dtype; the result's, if it is not given. ``real`` is the function on float64 tensors, and
        ``name`` replaces the operator's own.
        """
        dtype = computes or self.first_result.dtype
        label = name or self.operator.overloadpacket.__name__
        key = f"{label}({', '.join(map(_named, attributes))}; {_COMPUTE.get(dtype, dtype)})"
        read = self.residues(operands)
        if all(operand.is_algebraic for operand in read):
            form = (NORMAL_FORMS if len(operands) == 1 else NORMAL_FORMS_OF_TWO).get(label)
            if form is not None and not attributes and not (label == "sign" and read[0].undefined):  # sign(nan) is 0
                return form(*read)
        return pointwise(lambda *xs: apply_uninterpreted(key, xs, real))(*read)

    def algebraic(self, *xs: Any) -> bool:
        """Return True if all ``xs`` are to be read algebraically: they are finite, and the sample point asks for it."""
        return self.point.semantics.algebraic and all(self.residue(x).is_algebraic for x in xs)

    def comparable(self, *xs: Any) -> bool:
        """Return True if all ``xs`` are algebraic, and defined for all inputs: comparisons are false for nan."""
        return self.algebraic(*xs) and not any(self.residue(x).undefined for x in xs)

    def decides_as_function(self, *xs: Any) -> bool:
        """Return True if a comparison of ``xs``, or a choice by one, is to be read as a function with values 0 and 1.

        It is in the readings that follow no choice, and in all if ``xs`` depend on random numbers. That is recorded,
        since a few draws show little of a comparison that rarely holds.
        """
        read = [x.residue for x in xs if hasattr(x, "residue")]
        if not read or self.point.semantics.algebraic or any(r.infinite or r.undefined for r in read):
            return False
        if any(r.cell.random for r in read):
            self.point.tosses.setdefault(self.operator.overloadpacket.__name__)
            return True
        return self.point.semantics.choices is not Choices.BY_VALUE

    @property
    def arguments(self) -> dict[str, Any]:
        """Return every argument by its name in the schema, defaults included."""
        return bind_arguments(self.operator, self.args, self.kwargs)

    @property
    def first_result(self) -> Tensor:
        result = self.result[0] if isinstance(self.result, (tuple, list)) else self.result
        assert isinstance(result, Tensor)
        return result

    def took_branch(self) -> None:
        """Record that the result follows a choice by value: the verdict holds for this choice only."""
        self.point.branch.setdefault(self.operator.overloadpacket.__name__)
        self.note_limits()

    def note_limits(self) -> None:
        """Record the numbers that values are compared with; inputs of that size may take another branch.

        Those are Python numbers and small tensors. A small tensor that was computed is one if a larger one is compared
        with it.
        """
        operands = list(tree_iter((self.args, dict(self.kwargs))))
        given = [x for x in operands if type(x) in (int, float)]
        tensors = [x for x in operands if isinstance(x, Tensor) and not x.is_complex()]
        largest = max((x.numel() for x in tensors), default=0)
        for x in tensors:
            if x.numel() > MAX_LIMIT_ELEMENTS:
                continue
            if not hasattr(x, "residue"):
                given += x.flatten().tolist()
            elif x.numel() < largest:
                self.point.limits.update(float(n) for n in value_of(x).flatten().tolist() if math.isfinite(n))
        results = [x for x in tree_iter(self.result) if isinstance(x, Tensor) and x.dtype in _NARROW]
        given += [torch.iinfo(x.dtype).max for x in results]
        self.point.note_numbers(float(n) for n in given if math.isfinite(n))

    def indices(self, index: Tensor) -> Tensor:
        """Return the values of an index or mask, and record a choice by value if they depend on a shadow."""
        at: Tensor = self.value(index)
        if at is not index:
            if index.dtype is torch.bool:
                self.point.note_decided(self.operator.overloadpacket.__name__)
            self.took_branch()
        return at

    def undecided(self, why: str) -> Undecided:
        return Undecided(f"{self.operator}: {why}")


def _named(attribute: object) -> str:
    """Return the name of an attribute's value, the same for 1, 1.0 and True."""
    if isinstance(attribute, (int, float)) and float(attribute) == attribute:
        return repr(float(attribute))
    return repr(attribute)


def value_of(x: Any) -> Any:
    """Return the value of a shadow, anything else unchanged."""
    return x.value if isinstance(x, Tensor) and hasattr(x, "residue") else x  # type: ignore[attr-defined]
