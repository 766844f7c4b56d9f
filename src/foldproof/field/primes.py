"""The primes that residues are taken modulo: all of those between 2^19 and 2^20."""

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
"""38,635 primes. Below 2^20, so that 2^14 products of balanced residues add up exactly in float64."""


def draw_primes(k: int, rng: random.Random) -> tuple[int, ...]:
    """Draw ``k`` distinct primes.

    They are random because a nonzero rational coefficient vanishes modulo the primes that divide it: against fixed
    primes, a constant chosen badly (or by an adversary) would be invisible.
    """
    return tuple(rng.sample(PRIMES, k))
