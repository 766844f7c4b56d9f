"""Constants read as the numbers that they were before rounding.

Two programs often differ in constants alone that one of them rounded, or computed in another order: 1/1.7 and 0.588235,
1/√d and the product of two fourth roots, a table of cosines. In this reading (`Semantics.constants`):

* a constant is the simplest fraction within its rounding, if that is simple: 0.1, 10/17, 1/255; or one within a few
  roundings, if that is much simpler: a product of two fourth roots, as 0.49999997; or one within the rounding of a
  Python float: 100352/100351, the correction of a variance
* or the square root, or fourth root, of a simple fraction: primes are drawn modulo which these roots exist
* or a simple fraction times, or over, the logarithm of 2 or 10, which is uninterpreted
* an element of a larger table of the second program is the nearest constant of the first, if that is nearer than a few
  roundings

Each is an approximation with a bound, which a verdict names; agreement in this reading is PROVED_WITHIN at best. The
first three readings depend on the constant alone. Roots are elements of one number field, and a prime modulo which they
exist maps them to residues by a ring homomorphism, so that the test of identities stays valid. The norm of a number of
that field takes the place of its size; it is at most the field's degree times as long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from foldproof.field import Field
from foldproof.thresholds import MAX_CONSTANT_ROUNDINGS

_MAX_SIMPLE = 1 << 20
"""Largest product of numerator and denominator of a simple fraction; a random float32 has an equally near one with a
product of 2^24."""
_MAX_PART = 1 << 19
"""Limit of numerator and denominator of a fraction within the rounding of float64, of which a random number has an
equally near one with a product of 2^53. No prime is as small, so that no denominator is 0 in a field."""
_MAX_RADICAND = 1 << 14
"""The same for the square or fourth power of a root."""
_MUCH_SIMPLER = 64
"""The factor for constants that are off by several roundings, as the product of two rounded roots is."""
_MAX_ROOTS = 3
"""Largest number of radicands; each halves the number of primes."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
_ROUNDING = {torch.float64: 2.0**-53}
"""Relative rounding; that of float32 holds for dtypes with fewer bits, whose constants are mostly meant as given."""


@dataclass(frozen=True)
class Logarithm:
    """The logarithm of a number, as a factor or ``below``, as a divisor."""

    of: int
    below: bool = False

    def __float__(self) -> float:
        return math.log(self.of) ** (-1 if self.below else 1)

    def __str__(self) -> str:
        return f"1/log({self.of})" if self.below else f"log({self.of})"


@dataclass(frozen=True)
class Number:
    """A fraction times fourth roots of primes, whose exponents are ``roots``, or times a ``logarithm``."""

    fraction: Fraction
    roots: tuple[tuple[int, int], ...] = ()
    logarithm: Logarithm | None = None

    def __float__(self) -> float:
        start = float(self.fraction) * (1.0 if self.logarithm is None else float(self.logarithm))
        return math.prod((float(q) ** (n / 4) for q, n in self.roots), start=start)

    def __str__(self) -> str:
        power = {1: "^(1/4)", 2: "^(1/2)", 3: "^(3/4)"}
        logarithm = [] if self.logarithm is None else [str(self.logarithm)]
        return "·".join([str(self.fraction), *(f"{q}{power[n]}" for q, n in self.roots), *logarithm])

    def residue(self, modulus: Field) -> int:
        """Return the residue, without the logarithm, modulo a prime of `primes_with_roots`."""
        p = modulus.p
        out = modulus.number(self.fraction.numerator) * pow(modulus.number(self.fraction.denominator), p - 2, p)
        for q, n in self.roots:
            out = out * pow(fourth_root(q, p), n, p) % p
        return out % p


@functools.cache
def fourth_root(q: int, p: int) -> int:
    """Return r with r⁴ = q modulo p, where q is a square and p = 3 modulo 4."""
    root = pow(q, (p + 1) // 4, p)
    root = root if pow(root, (p - 1) // 2, p) == 1 else p - root  # this root of q is a square, too
    return pow(root, (p + 1) // 4, p)


@functools.cache
def primes_with_roots(primes: tuple[int, ...], radicands: frozenset[int]) -> tuple[int, ...]:
    """Return the primes modulo which fourth roots of all ``radicands`` exist."""
    return tuple(p for p in primes if p % 4 == 3 and all(pow(q, (p - 1) // 2, p) == 1 for q in radicands))


def number_meant(x: float, dtype: torch.dtype = torch.float32) -> Number | None:
    """Return the simple number that ``x`` rounds; None if there is none, or if it is ``x`` itself."""
    return _number_meant(x, _ROUNDING.get(dtype, 2.0**-24))


@functools.lru_cache(maxsize=1 << 14)
def _number_meant(x: float, rounding: float) -> Number | None:
    if x == 0 or not math.isfinite(x) or float(x).is_integer():
        return None
    best = _simplest_number(x, rounding, 1)
    if best is None:
        best = _simplest_number(x, MAX_CONSTANT_ROUNDINGS * rounding, _MUCH_SIMPLER)
        if best is not None and best.fraction.denominator == 1 and not best.roots:
            return None  # it is near a whole number on purpose
    if best is None:
        exact = _simplest(abs(x), _ROUNDING[torch.float64])
        best = Number(exact if x > 0 else -exact) if max(exact.numerator, exact.denominator) < _MAX_PART else None
    return None if best is None or (best.fraction == Fraction(x) and not best.roots and not best.logarithm) else best


def _simplest_number(x: float, rounding: float, simpler: int) -> Number | None:
    """Return the simplest number within a relative distance of x; None if it is not simple, by a factor ``simpler``."""
    sign = 1 if x > 0 else -1
    simple = _simplest(abs(x), rounding)
    found = [(_length(simple), Number(sign * simple))] if _length(simple) * simpler <= _MAX_SIMPLE else []
    for power in (2, 4):
        radicand = _simplest(abs(x) ** power, 2 * power * rounding)
        root = _root(sign, radicand, power) if _length(radicand) * simpler <= _MAX_RADICAND else None
        found += [(_length(radicand), root)] if root is not None else []
    for logarithm in _LOGARITHMS:
        fraction = _simplest(abs(x) / float(logarithm), 2 * rounding)
        if _length(fraction) * simpler <= _MAX_RADICAND:
            found.append((_length(fraction), Number(sign * fraction, (), logarithm)))
    return min(found, key=lambda one: one[0], default=(0, None))[1]


_LOGARITHMS = tuple(Logarithm(n, below) for n in (2, 10) for below in (False, True))


def _length(x: Fraction) -> int:
    return x.numerator * x.denominator


def _root(sign: int, radicand: Fraction, power: int) -> Number | None:
    fraction, roots = Fraction(sign), []
    numerator, denominator = radicand.numerator, radicand.denominator
    for q in _PRIMES:
        exponent = 0
        while numerator % q == 0:
            numerator, exponent = numerator // q, exponent + 1
        while denominator % q == 0:
            denominator, exponent = denominator // q, exponent - 1
        whole, rest = divmod(exponent * (4 // power), 4)
        fraction *= Fraction(q) ** whole
        if rest:
            roots.append((q, rest))
    return Number(fraction, tuple(roots)) if numerator == denominator == 1 else None


def _simplest(x: float, rounding: float) -> Fraction:
    """Return the fraction with the smallest denominator within a relative distance of x > 0."""
    exact, width = Fraction(x), Fraction(x) * Fraction(rounding)
    return _between(exact - width, exact + width)


def _between(low: Fraction, high: Fraction) -> Fraction:
    """Return the simplest fraction of an interval of positive numbers, by continued fractions."""
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    below = whole - 1
    return below + 1 / _between(1 / (high - below), 1 / (low - below))


def radicands_of(numbers: Iterable[float]) -> frozenset[int]:
    """Return the primes whose roots occur in the readings of ``numbers``, the commonest first, if there are many."""
    count: dict[int, int] = {}
    for x in numbers:
        meant = number_meant(x)
        for q, _ in meant.roots if meant else ():
            count[q] = count.get(q, 0) + 1
    return frozenset(sorted(count, key=lambda q: -count[q])[:_MAX_ROOTS])


@dataclass
class Constants:
    """The readings of one sample point: changes with their largest distances, and the first program's tables."""

    radicands: frozenset[int]
    changes: dict[str, float] = field(default_factory=dict)
    _known: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def number(self, x: float, dtype: torch.dtype) -> Number | None:
        """Return the number that ``x`` is read as; None for ``x`` itself."""
        meant = number_meant(x, dtype)
        if meant is None or not {q for q, _ in meant.roots} <= self.radicands:
            return None
        self.changes[f"the constant {x!r} is read as {meant}"] = abs(float(meant) - x) + abs(x) * 2.0**-52
        return meant

    def near(self, x: Tensor, first: bool, dtype: torch.dtype) -> Tensor:
        """Return a constant in float64, with elements of the first program's constants in place of near ones.

        Near is a few roundings to ``dtype``, the one that the constant is meant in. ``first`` says that it is one of
        the first program, which is added to these. Elements near 0 are as far apart as those near 1, because sines and
        cosines are.
        """
        wide = x.detach().cpu().double()  # constants of both programs meet, whatever their devices
        if first:
            self._known = torch.unique(torch.cat([self._known, wide.flatten()]))
            return wide.to(x.device)
        if not len(self._known) or not wide.numel():
            return wide.to(x.device)
        above = torch.searchsorted(self._known, wide.contiguous()).clamp_(max=len(self._known) - 1)
        low, high = self._known[(above - 1).clamp_(min=0)], self._known[above]
        near = torch.where((low - wide).abs() <= (high - wide).abs(), low, high)
        size = wide.abs().clamp(min=min(1.0, float(wide.abs().max())))
        reach = MAX_CONSTANT_ROUNDINGS * 2 * _ROUNDING.get(dtype, 2.0**-24)
        moved = (near != wide) & ((near - wide).abs() <= reach * size)
        if bool(moved.any()):
            bound = float((near - wide).abs()[moved].max())
            what = f"a constant of shape {tuple(x.shape)} is read as a near one of the first program"
            what += f", in {int(moved.sum())} of {x.numel()} elements" * (x.numel() > 1)
            self.changes[what] = max(bound, self.changes.get(what, 0.0))
        return torch.where(moved, near, wide).to(x.device)


def told(changes: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the changes in words with their bounds, the largest first."""
    return sorted(changes.items(), key=lambda change: -change[1])
