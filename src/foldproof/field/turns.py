"""Cosines of fractions of a turn modulo primes, as values of Chebyshev polynomials; see `foldproof.shadow.turns`."""

from __future__ import annotations

import functools
import math
import random


@functools.lru_cache(maxsize=64)
def primes_with_turns(primes: tuple[int, ...], turn: int) -> tuple[int, ...]:
    """Return the primes modulo which the cosine of 1/turn of a turn exists."""
    return tuple(p for p in primes if p % turn in (1, turn - 1))


@functools.lru_cache(maxsize=64)
def degree_of(turn: int) -> int:
    """Return the degree of the field of cos(2π/turn) over the rationals, φ(turn)/2."""
    return max(sum(math.gcd(j, turn) == 1 for j in range(turn)) // 2, 1)


def has_root(turn: int, q: int) -> bool:
    """Return True if the square root of a prime q may be among the sums of cosines of fractions of a turn."""
    return turn > 0 and turn % (8 if q == 2 else q) == 0


@functools.lru_cache(maxsize=256)
def chebyshev(p: int, turn: int) -> tuple[int, ...]:
    """Return T_j(c) modulo p for 0 <= j < turn, where c is a cosine of 1/turn of a turn."""
    rng = random.Random(f"{p} {turn}")
    order = p - 1 if p % turn == 1 else p + 1
    while True:
        x = rng.randrange(2, p)
        splits = pow(x * x - 1, (p - 1) // 2, p) == 1  # then w = x + √(x² - 1) lies in the field itself
        if splits != (order == p - 1):
            continue
        c = _evaluate(order // turn, x, p)
        if all(_evaluate(turn // q, c, p) != 1 for q in _prime_factors(turn)):
            break
    values = [1, c]
    while len(values) < turn:
        values.append((2 * c * values[-1] - values[-2]) % p)
    return tuple(values)


def _evaluate(n: int, x: int, p: int) -> int:
    """Return T_n(x) modulo p, by doubling."""
    low, high = 1, x  # T_k and T_{k+1}
    for bit in bin(n)[2:]:
        both = (2 * low * high - x) % p
        low, high = ((2 * low * low - 1) % p, both) if bit == "0" else (both, (2 * high * high - 1) % p)
    return low


def _prime_factors(n: int) -> set[int]:
    found, q = set(), 2
    while q * q <= n:
        while n % q == 0:
            found.add(q)
            n //= q
        q += 1
    return found | ({n} if n > 1 else set())
