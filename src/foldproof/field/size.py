"""Sizes of the polynomials behind residues, and the probability that a comparison of residues is wrong.

Every residue is the value of a rational function N/D of random leaves and uninterpreted outputs. `Size` bounds the
degree and the coefficients of N and D over all elements of a tensor. The probability of a wrong PROVED is the bound of
Schwartz (1980) and Zippel (1979) for the degree, plus the probability that a random prime divides a coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

from foldproof.field.primes import PRIMES
from foldproof.field.uniform import DRAWN

_HUGE = 1 << 40  # bounds saturate here, far beyond anything provable


class Bound(NamedTuple):
    """Bounds on a polynomial. Its coefficients are multiples of 2^low; their magnitudes sum to at most 2^high."""

    degree: int
    low: int
    high: float

    def __mul__(self, other: Bound) -> Bound:  # type: ignore[override]
        return _saturated(self.degree + other.degree, self.low + other.low, self.high + other.high)

    def __add__(self, other: Bound) -> Bound:  # type: ignore[override]
        a, b = max(self.high, other.high), min(self.high, other.high)
        high = a + math.log2(1 + 2.0 ** max(b - a, -60))
        return Bound(max(self.degree, other.degree), min(self.low, other.low), high)

    def join(self, other: Bound) -> Bound:
        return Bound(max(self.degree, other.degree), min(self.low, other.low), max(self.high, other.high))

    def power(self, n: int) -> Bound:
        return _saturated(self.degree * n, self.low * n, self.high * n)

    @property
    def bits(self) -> float:
        """Size in bits of the largest coefficient, after scaling all of them to integers."""
        return max(self.high - self.low, 1.0)


def _saturated(degree: int, low: int, high: float) -> Bound:
    return Bound(min(degree, _HUGE), max(low, -_HUGE), min(high, float(_HUGE)))


ONE = Bound(0, 0, 0.0)


Shared = tuple[tuple["Factor", int], ...]
"""A product of factors with their exponents, each factor once."""


class Factor(NamedTuple):
    """A divisor shared by all elements of a tensor; ``key`` identifies it."""

    key: Hashable
    bound: Bound


def _combined(a: Shared, b: Shared, how: Callable[[int, int], int]) -> Shared:
    if a == b and how is max:
        return a
    out = dict(a)
    for factor, n in b:
        out[factor] = how(out.get(factor, 0), n)
    return tuple(out.items())


def _sum(a: int, b: int) -> int:
    return a + b


def _expanded(shared: Shared) -> Bound:
    out = ONE
    for factor, n in shared:
        out = out * factor.bound.power(n)
    return out


class Size(NamedTuple):
    """Bounds on the numerator and the denominator of every element of a tensor.

    The denominator has two parts: a product of factors ``shared`` by all elements (as after a division by a number),
    which a sum of elements leaves alone, and a part ``varying`` from element to element, which a sum multiplies.
    """

    numerator: Bound
    shared: Shared = ()
    varying: Bound = ONE

    @staticmethod
    def variable() -> Size:
        """Return the size of a random leaf or of the output of an uninterpreted function."""
        return Size(Bound(1, 0, 0.0))

    @staticmethod
    def constant(low: int, high: float) -> Size:
        """Return the size of integer multiples of 2^low of magnitude at most 2^high."""
        return Size(Bound(0, low, high))

    def _over(self, shared: Shared) -> Bound:
        """Return the numerator over the denominator ``shared``, a multiple of this size's own."""
        if shared == self.shared:
            return self.numerator
        ours = dict(self.shared)
        return self.numerator * _expanded(tuple((f, n - ours.get(f, 0)) for f, n in shared))

    def __mul__(self, other: Size) -> Size:  # type: ignore[override]
        shared = self.shared or other.shared
        if self.shared and other.shared:
            shared = _combined(self.shared, other.shared, _sum)
        return Size(self.numerator * other.numerator, shared, self.varying * other.varying)

    def __add__(self, other: Size) -> Size:  # type: ignore[override]
        shared = _combined(self.shared, other.shared, max)
        a, b = self._over(shared), other._over(shared)
        if self.varying == other.varying == ONE:
            return Size(a + b, shared)
        return Size(a * other.varying + b * self.varying, shared, self.varying * other.varying)

    def join(self, other: Size) -> Size:
        """Return the size of elements taken from either tensor."""
        shared = _combined(self.shared, other.shared, max)
        return Size(self._over(shared).join(other._over(shared)), shared, self.varying.join(other.varying))

    def total(self, terms: int) -> Size:
        """Return the size of a sum of ``terms`` elements."""
        if terms <= 1:
            return self
        grown = self.numerator * Bound(0, 0, math.log2(terms))
        if self.varying == ONE:
            return Size(grown, self.shared)
        return Size(grown * self.varying.power(terms - 1), self.shared, self.varying.power(terms))

    def product(self, terms: int) -> Size:
        """Return the size of a product of ``terms`` elements."""
        shared = tuple((f, n * terms) for f, n in self.shared)
        return Size(self.numerator.power(terms), shared, self.varying.power(terms))

    def inverse(self, key: Hashable | None = None) -> Size:
        """Return the size of the reciprocal; ``key`` identifies the divisor if all elements share it."""
        numerator = _expanded(self.shared) * self.varying
        if key is None:
            return Size(numerator, (), self.numerator)
        return Size(numerator, ((Factor(key, self.numerator), 1),))

    @property
    def difference(self) -> tuple[int, float]:
        """Return degree and bits of N1*D2 - N2*D1, for two values of this size."""
        cross = self.numerator * _expanded(self.shared) * self.varying
        return cross.degree, cross.bits + 1


def error_bound(degree: int, bits: float, pairs: int, k: int, primes: int = len(PRIMES)) -> float:
    """Return log2 of the probability that different programs agree on all residues, modulo k of so many primes.

    ``pairs`` counts the pairs of evaluations of one uninterpreted function. Unless two different arguments collide,
    uninterpreted outputs are independent variables, and the programs' outputs are polynomials in them. Each of
    these events has at most the probability ``chance`` in every one of the k fields.
    """
    chance = degree / DRAWN + (bits / 19) / (primes - k) + 2 / DRAWN
    if chance >= 1:
        return 0.0
    return min(0.0, math.log2(1 + pairs) + k * math.log2(chance))


def primes_needed(degree: int, bits: float, pairs: int, target: float = -40.0, primes: int = len(PRIMES)) -> int | None:
    """Return the smallest k with an `error_bound` below 2^target; None if 32 primes are not enough."""
    return next((k for k in range(1, 33) if error_bound(degree, bits, pairs, k, primes) < target), None)
