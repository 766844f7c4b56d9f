"""Facts about residues besides their values: linear forms, signs, powers, logarithms and pieces.

A residue does not show that a value is 2·x, or the exponential of a difference. Some identities need that knowledge:
exp(x - m) = exp(x)/exp(m), |2·x| = 2·|x|, 1/(1/x) = x. Arithmetic records it in the algebraic reading of a program
(`Semantics.algebraic`), and `foldproof.shadow.normal_forms` uses it.

Soundness
---------
Each fact is an identity of real numbers that follows from the operators that made a value, for all inputs. A rule that
uses a fact replaces a value by another expression of the same real value. Programs that agree in that reading, for all
interpretations of the uninterpreted functions in it, are equal. Two values that are equal, with different facts about
them, may be read differently. This loses proofs and makes none.

A write changes a value, and what was known about it. Facts therefore hold the number of writes to the memory of each
residue that they name, and are forgotten when it has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

Residue = Any
"""A `foldproof.shadow.residue.Residue`, which knows `Known` and is not imported here."""

_MAX_TERMS = 4
"""Longest linear form; a longer one is a value of its own."""
_MAX_DIGITS = 256
"""Largest size of a coefficient, in bits."""


@dataclass(frozen=True)
class Term:
    """A coefficient times a value."""

    factor: Fraction
    atom: Residue
    writes: int

    @property
    def valid(self) -> bool:
        return bool(self.atom.cell.writes == self.writes)


@dataclass(frozen=True)
class Linear:
    """The sum of ``terms`` and a ``constant``."""

    terms: tuple[Term, ...]
    constant: Fraction = Fraction(0)

    def plus(self, other: Linear, sign: int = 1) -> Linear | None:
        """Return the sum (difference) of two forms; None if it is too long."""
        merged = [*self.terms]
        for term in other.terms:
            at = next((i for i, old in enumerate(merged) if same(old.atom, term.atom)), len(merged))
            factor = sign * term.factor + (merged[at].factor if at < len(merged) else 0)
            merged[at : at + 1] = [Term(factor, term.atom, term.writes)]
        return _kept(Linear(tuple(merged), self.constant + sign * other.constant))

    def times(self, number: Fraction) -> Linear | None:
        """Return the product with a number."""
        return _kept(
            Linear(tuple(Term(t.factor * number, t.atom, t.writes) for t in self.terms), self.constant * number)
        )

    @property
    def number(self) -> Fraction | None:
        """The number that it is, if it has no terms."""
        return None if self.terms else self.constant

    @property
    def content(self) -> Fraction:
        """The greatest common divisor of its factors, greater than 0: the content of c·form is |c| times as large."""
        numbers = [abs(t.factor) for t in self.terms]
        if not numbers:
            return Fraction(1)
        scale = math.lcm(*(n.denominator for n in numbers))
        return Fraction(math.gcd(*(int(n * scale) for n in numbers)), scale)


@dataclass(frozen=True)
class Known:
    """The facts about one residue, as long as it is not written to.

    Attributes:
        linear: its linear form.
        nonnegative: True if no element is negative.
        positive: True if every element is greater than 0.
        masked: True if every element is greater than 0, or 0 by a mask, for all inputs; the residues of these are 0.
        power: a value and the exponent, ±1/2 or -1, whose power it is.
        root: a value that it is the square of.
        exponent: the value that it is the exponential of.
        logarithm: the value that it is the logarithm of.
        piecewise: its pieces; see `foldproof.shadow.piecewise`.
        largest: values of which it is the largest, element by element.
        factors: two values without negative elements of which it is the product.
    """

    linear: Linear | None = None
    nonnegative: bool = False
    positive: bool = False
    masked: bool = False
    power: tuple[Term, Fraction] | None = None
    root: Term | None = None
    exponent: Term | None = None
    logarithm: Term | None = None
    piecewise: Any = None
    largest: tuple[Term, ...] = ()
    factors: tuple[Term, ...] = ()
    writes: int = 0


NOTHING = Known()

_MAX_DEPTH = 6
"""Largest number of functions that are applied to one another in an `Origin`; it keeps their operands alive."""


@dataclass(frozen=True)
class Origin:
    """The pointwise function, and the operands, that a value was computed from, as long as it is not written to."""

    function: Callable[..., Residue]
    operands: tuple[Term, ...]
    depth: int
    writes: int

    @staticmethod
    def of(function: Callable[..., Residue], operands: Sequence[Residue], result: Residue) -> Origin:
        """Return the origin of a result."""
        depth = 1 + max(_depth(x) for x in operands)
        if depth > _MAX_DEPTH:
            operands, depth = [_without_origin(x) for x in operands], 1
        return Origin(function, tuple(map(term_of, operands)), depth, result.cell.writes)

    def holds_for(self, result: Residue) -> bool:
        """Return True if neither the result nor an operand has been written to."""
        return bool(result.cell.writes == self.writes) and all(term.valid for term in self.operands)


def _without_origin(residue: Residue) -> Residue:
    """Return the same value without its origin, and without those of the terms of its linear form."""
    out = residue.view_as(residue.parts)
    known = facts(residue)
    if known.linear is not None:
        terms = (replace(t, atom=out if same(t.atom, residue) else _without_origin(t.atom)) for t in known.linear.terms)
        known = replace(known, linear=replace(known.linear, terms=tuple(terms)))
    out.known, out.label = known, residue.label
    return out


def _depth(residue: Residue) -> int:
    """Return the number of functions that made a residue, or the terms of its linear form, as far as it is kept."""
    if residue.origin is not None:
        return int(residue.origin.depth)
    atoms = [term.atom for term in linear_of(residue).terms]
    return max((int(atom.origin.depth) for atom in atoms if atom.origin is not None), default=0)


def facts(residue: Residue) -> Known:
    """Return what is known about ``residue``, and nothing after a write to it or to a value that the facts name."""
    known = residue.known
    if known is None or known.writes != residue.cell.writes:
        return NOTHING
    return known if hold(known) else NOTHING


def hold(known: Known) -> bool:
    """Return True if no value that the facts name has been written to."""
    named = [*(known.linear.terms if known.linear else ()), *known.largest, *known.factors]
    named += [term for term in (known.exponent, known.logarithm, known.root) if term is not None]
    named += [known.power[0]] if known.power is not None else []
    named += known.piecewise.terms if known.piecewise is not None else []
    return all(term.valid for term in named)


def term_of(residue: Residue, factor: Fraction = Fraction(1)) -> Term:
    """Return ``factor`` times the residue, as it is now."""
    return Term(factor, residue, residue.cell.writes)


def linear_of(residue: Residue) -> Linear:
    """Return the linear form of ``residue``, which is itself if nothing else is known."""
    return facts(residue).linear or Linear((term_of(residue),))


def plain(residue: Residue) -> Residue:
    """Return the value that ``residue`` is one times, as -(-x) is, or the residue itself."""
    linear = facts(residue).linear
    if linear is None or linear.constant or len(linear.terms) != 1 or linear.terms[0].factor != 1:
        return residue
    atom = linear.terms[0].atom
    return atom if atom.shape == residue.shape else residue


def scale_of(residue: Residue) -> tuple[Fraction, Residue] | None:
    """Return the number and the value whose product ``residue`` is known to be; None if it is no such product."""
    linear = facts(residue).linear
    if linear is None or linear.constant or len(linear.terms) != 1 or linear.terms[0].factor == 1:
        return None
    (term,) = linear.terms
    return (term.factor, term.atom) if term.atom.shape == residue.shape else None


def number_of(residue: Residue) -> Fraction | None:
    """Return the number that all elements are equal to, if it is known."""
    linear = facts(residue).linear
    return None if linear is None else linear.number


def same(one: Residue, other: Residue) -> bool:
    """Return True if both are the same elements of the same memory, or values with one label."""
    if one is other or _place_of(one) == _place_of(other):
        return True
    label = _label_of(one)
    return label is not None and label == _label_of(other)


def _label_of(residue: Residue) -> str | None:
    """Return the label of a value, as long as it is not written to; equal values have the same (`SharedFacts`)."""
    label, writes = residue.label or (None, None)
    return label if writes == residue.cell.writes else None


def all_nonnegative(residues: Iterable[Residue]) -> bool:
    return all(is_nonnegative(r) for r in residues)


def is_nonnegative(residue: Residue) -> bool:
    number = number_of(residue)
    return number >= 0 if number is not None else facts(residue).nonnegative


def is_negated(residue: Residue) -> bool:
    """Return True if the residue is a negative number times a value."""
    linear = facts(residue).linear
    return linear is not None and not linear.constant and len(linear.terms) == 1 and linear.terms[0].factor < 0


def is_positive(residue: Residue) -> bool:
    number = number_of(residue)
    return number > 0 if number is not None else facts(residue).positive


def is_masked(residue: Residue) -> bool:
    """Return True if elements are greater than 0, or 0 by a mask; see `Known.masked`."""
    return is_positive(residue) or facts(residue).masked


def _place_of(residue: Residue) -> object:
    first = residue.parts[0] if isinstance(residue.parts, tuple) else None
    if first is None:
        return id(residue)
    return first.data_ptr(), tuple(first.shape), first.stride()


def _kept(linear: Linear) -> Linear | None:
    numbers = (*(t.factor for t in linear.terms), linear.constant)
    linear = Linear(tuple(t for t in linear.terms if t.factor), linear.constant)
    small = all(max(n.numerator.bit_length(), n.denominator.bit_length()) <= _MAX_DIGITS for n in numbers)
    return linear if small and len(linear.terms) <= _MAX_TERMS else None
