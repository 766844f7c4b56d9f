"""The primes used as moduli: all primes between 2^19 and 2^20."""

from __future__ import annotations

import math
import random


def _sieve(low: int, high: int) -> tuple[int, ...]:
    composite = bytearray(high)
    for n in range(2, math.isqrt(high) + 1):
        if not composite[n]:
            composite[n * n :: n] = b"\1" * len(range(n * n, high, n))
    return tuple(n for n in range(low, high) if not composite[n])


PRIMES = _sieve(1 << 19, 1 << 20)
"""The 38,635 primes below 2^20; 2^14 products of their balanced residues have an exact float64 sum."""


def draw_primes(k: int, rng: random.Random, pool: tuple[int, ...] = PRIMES) -> tuple[int, ...]:
    """Draw ``k`` distinct primes of ``pool``.

    A nonzero rational coefficient vanishes modulo the primes that divide it: with fixed primes, a constant chosen
    badly (or by an adversary) would be invisible. Random primes make that unlikely.
    """
    return tuple(rng.sample(pool, k))
