"""Cosines of fractions of a turn: their relations modulo p are those of the real numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from foldproof.field import PRIMES, chebyshev, degree_of, has_root, primes_with_turns
from foldproof.shadow import SamplePoint, Semantics
from foldproof.shadow.residue import Residue, embed_fraction
from foldproof.shadow.turns import cosines, inverse_root, reflected, sines


def same(a: Residue, b: Residue) -> bool:
    return all(torch.equal(f.canonical(p), f.canonical(q)) for f, p, q in zip(a.point.fields, a.parts, b.parts))


@pytest.mark.parametrize("n", [3, 4, 5, 8, 12, 15])
def test_sums_of_angles(n: int) -> None:
    """cos(a + b) = cos a cos b - sin a sin b, for all fractions of a turn: a ring homomorphism keeps it."""
    point = SamplePoint(seed=n, k=3, semantics=Semantics(turn=4 * n))
    turns = [Fraction(j, 4 * n) for j in range(4 * n)]
    for shift in (Fraction(1, 4 * n), Fraction(3, 4 * n), Fraction(2 * n - 1, 4 * n)):
        moved = [turn + shift for turn in turns]
        one = [shift] * len(turns)
        by_sum = cosines(point, turns) * cosines(point, one) - sines(point, turns) * sines(point, one)
        assert same(cosines(point, moved), by_sum)
        assert not same(cosines(point, moved), by_sum + sines(point, one))


def test_known_cosines_and_roots() -> None:
    point = SamplePoint(seed=1, k=4, semantics=Semantics(turn=4 * 3 * 5 * 8))
    half, third = (embed_fraction(point, Fraction(1, n)) for n in (2, 3))
    assert same(cosines(point, [Fraction(1, 3)]), -cosines(point, [Fraction(1, 6)]))
    assert same(cosines(point, [Fraction(1, 6)]), half.reshape(1))
    assert same(inverse_root(point, 2).reshape(1), cosines(point, [Fraction(1, 8)]))  # and not its negative
    assert same(
        inverse_root(point, 3).reshape(1),
        cosines(point, [Fraction(1, 12)]) * third * embed_fraction(point, Fraction(2)),
    )
    for n in (2, 3, 5, 6, 8, 10, 12, 15, 16):
        root = inverse_root(point, n)
        assert same(root * root, embed_fraction(point, Fraction(1, n)))
    assert same(inverse_root(point, 6), inverse_root(point, 2) * inverse_root(point, 3))


def test_names_obey_symmetries_alone() -> None:
    point = SamplePoint(seed=1, k=2)
    turns = [Fraction(j, 7) for j in range(-7, 8)]
    assert same(cosines(point, turns), cosines(point, [-t for t in turns]))
    assert same(cosines(point, turns), -cosines(point, [t + Fraction(1, 2) for t in turns]))
    assert same(sines(point, turns), -sines(point, [-t for t in turns]))
    assert same(cosines(point, [Fraction(2, 14)]), cosines(point, [Fraction(1, 7)]))
    assert not same(cosines(point, [Fraction(1, 7)]), cosines(point, [Fraction(2, 7)]))
    for turn in turns:
        sign, size = reflected(turn)
        assert 0 <= size <= Fraction(1, 4)
        assert math.isclose(sign * math.cos(2 * math.pi * size), math.cos(2 * math.pi * turn), abs_tol=1e-12)


@pytest.mark.parametrize("turn", [4, 12, 32, 60])
def test_primes_and_chebyshev_polynomials(turn: int) -> None:
    primes = primes_with_turns(PRIMES, turn)
    assert {p % turn for p in primes} == {1, turn - 1} - {0}
    for p in primes[:4]:
        values = chebyshev(p, turn)
        assert values[0] == 1 and len(values) == turn
        assert values[turn // 2] == p - 1 and values[turn // 4] == 0
        assert len(set(values)) == turn // 2 + 1  # of order `turn`, and no other symmetry than that of the cosine
    assert degree_of(32) == 8 and degree_of(4) == 1


def test_roots_that_are_sums_of_cosines() -> None:
    assert has_root(12, 3) and not has_root(12, 5) and not has_root(4, 2) and has_root(8, 2) and not has_root(0, 2)
