"""The bounds on degree and coefficients against polynomials that are multiplied out."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import sympy

from foldproof.field import PRIMES, Size, error_bound, primes_needed
from foldproof.field.size import ONE, Bound

X = sympy.symbols("x0:4")


class Expression:
    """A rational function kept as (numerator, denominator), beside the `Size` that bounds it."""

    def __init__(self, numerator: sympy.Expr, denominator: sympy.Expr, size: Size) -> None:
        self.numerator, self.denominator, self.size = numerator, denominator, size

    def check(self) -> None:
        """Numerator times denominator in lowest terms stays inside the bound on cross products of such values."""
        numerator, denominator = sympy.fraction(sympy.cancel(self.numerator / self.denominator))
        degree, bits = self.size.difference
        cross = sympy.Poly(sympy.expand(numerator * denominator), *X)
        assert cross.total_degree() <= degree
        coefficients = [Fraction(str(c)) for c in cross.coeffs()]
        whole = [int(c * math.lcm(*(c.denominator for c in coefficients))) for c in coefficients]
        while any(whole) and all(c % 2 == 0 for c in whole):  # 2 has an inverse modulo every prime
            whole = [c // 2 for c in whole]
        largest = sum(abs(c) for c in whole)
        assert largest == 0 or math.log2(largest) <= bits + 1e-6


def variable(i: int) -> Expression:
    return Expression(X[i], sympy.Integer(1), Size.variable())


def constant(numerator: int, exponent: int) -> Expression:
    value = sympy.Integer(numerator) * sympy.Integer(2) ** exponent
    high = math.log2(abs(numerator)) + exponent if numerator else 0.0
    return Expression(value, sympy.Integer(1), Size.constant(exponent, high))


def combine(rng: random.Random, depth: int) -> Expression:
    if depth == 0:
        return (
            variable(rng.randrange(4))
            if rng.random() < 0.6
            else constant(rng.choice([1, 3, -5, 7]), rng.choice([-3, 0, 2]))
        )
    a, b = combine(rng, depth - 1), combine(rng, depth - 1)
    kind = rng.choice(["add", "mul", "mul", "inverse", "join"])
    if kind == "add":
        numerator = a.numerator * b.denominator + b.numerator * a.denominator
        return Expression(sympy.expand(numerator), sympy.expand(a.denominator * b.denominator), a.size + b.size)
    if kind == "mul":
        return Expression(
            sympy.expand(a.numerator * b.numerator), sympy.expand(a.denominator * b.denominator), a.size * b.size
        )
    if kind == "inverse" and a.numerator != 0:
        return Expression(a.denominator, a.numerator, a.size.inverse())
    chosen = rng.choice([a, b])
    return Expression(chosen.numerator, chosen.denominator, a.size.join(b.size))


@pytest.mark.parametrize("seed", range(60))
def test_random_rational_functions(seed: int) -> None:
    combine(random.Random(seed), 3).check()


def test_sums() -> None:
    """A sum of products of variables, as in a matrix product."""
    terms = 6
    size = (Size.variable() * Size.variable()).total(terms)
    assert size.numerator.degree == 2
    assert size.numerator.high == pytest.approx(math.log2(terms))
    # Reciprocals that vary from element to element multiply up ...
    varying = Size.variable().inverse().total(3)
    assert varying.varying.degree == 3 and varying.numerator.degree == 2
    # ... and one that all elements share does not.
    shared = (Size.variable() * Size.constant(0, math.log2(49)).inverse(key=49)).total(1000)
    assert shared.difference[1] < 40
    assert shared.numerator.degree == 1


def test_shared_denominators_are_counted_once() -> None:
    seventh = Size.constant(0, math.log2(7)).inverse(key=7)
    mean = Size.variable() * seventh
    many = mean
    for _ in range(100):
        many = many + mean
    assert many.difference[1] < 20
    other = Size.variable() * Size.constant(0, math.log2(5)).inverse(key=5)
    assert (mean + other).difference[1] > mean.difference[1]
    # A mean of means has the denominator twice.
    twice = (mean * seventh).difference[1]
    assert twice > mean.difference[1]


def test_join_bounds_both() -> None:
    a, b = Size.variable() * Size.variable(), Size.constant(-10, 3.0)
    joined = a.join(b)
    for one in (a, b):
        assert joined.numerator.degree >= one.numerator.degree
        assert joined.numerator.low <= one.numerator.low
        assert joined.numerator.high >= one.numerator.high


def test_products() -> None:
    size = (Size.variable() + Size.constant(0, 0.0)).product(5)
    assert size.numerator.degree == 5
    assert size.numerator.high >= 5  # (1 + x)^5 has coefficients that add up to 2^5


def test_bounds_saturate() -> None:
    size = Size.variable()
    for _ in range(200):
        size = size * size
    degree, bits = size.difference
    assert error_bound(degree, bits, 0, 32) == 0.0


def test_bound_of_a_sum_is_at_least_each() -> None:
    a, b = Bound(2, -5, 3.0), Bound(1, 0, 90.0)
    total = a + b
    assert (total.degree, total.low) == (2, -5)
    assert total.high >= 90.0
    two = ONE + ONE
    assert two == Bound(0, 0, 1.0)


def test_error_bound_is_monotone() -> None:
    base = error_bound(100, 500, 10**6, 6)
    assert -100 < base < -40
    assert error_bound(101, 500, 10**6, 6) > base
    assert error_bound(100, 600, 10**6, 6) > base
    assert error_bound(100, 500, 10**7, 6) > base
    assert error_bound(100, 500, 10**6, 7) < base
    assert error_bound(2**40, 1, 0, 5) == 0.0


def test_error_bound_is_what_it_says() -> None:
    """(1 + pairs)·(degree/2^19 + bits/(19·primes) + 2^-18)^k: residues are drawn from 2^19 numbers."""
    chance = 10 / 2**19 + (190 / 19) / (len(PRIMES) - 3) + 2.0**-18
    assert error_bound(10, 190, 7, 3) == pytest.approx(3 + 3 * math.log2(chance))


def test_primes_needed() -> None:
    k = primes_needed(100, 500, 10**6)
    assert k is not None
    assert error_bound(100, 500, 10**6, k) < -40 <= error_bound(100, 500, 10**6, k - 1)
    assert primes_needed(2**40, 1, 0) is None
