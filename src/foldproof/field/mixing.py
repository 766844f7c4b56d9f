"""Random whole numbers as a function of a key and a position: SplitMix64 (Steele, Lea and Flood, 2014).

All that is drawn is uniform in [-2^18, 2^18): 2^19 numbers that differ modulo each of our primes, and are reduced as
they are. The lemma of Schwartz and Zippel holds for points drawn from any such set, its size in the place of p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DRAWN = 1 << 19
"""How many values a residue that is drawn may have."""

_BLOCK = 1 << 15  # words made at a time, so that the passes run in cache


def _signed(x: int) -> int:
    """``x`` modulo 2^64, as an int64."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, 0))


def mix_(words: Tensor, spare: Tensor) -> Tensor:
    """SplitMix64's finaliser (Stafford's 13th) on int64, in place; ``spare`` is memory of the same shape."""
    for shift, factor in _ROUNDS:
        torch.bitwise_right_shift(words, shift, out=spare).bitwise_and_((1 << 64 - shift) - 1)  # torch drags the sign in
        words.bitwise_xor_(spare)
        if factor:
            words.mul_(factor)
    return words


def draw(key: int, start: int, shape: Sequence[int]) -> Tensor:
    """A float64 tensor of ``shape``: the numbers of ``key`` from position ``start`` on (it takes `positions`)."""
    total = positions(shape)
    out = torch.empty(2 * total, dtype=torch.float64)
    size = min(_BLOCK, total)
    steps = torch.arange(size).mul_(_signed(_GAMMA))
    words, spare = torch.empty_like(steps), torch.empty_like(steps)
    for at in range(0, total, _BLOCK):
        n = min(size, total - at)
        made = torch.add(steps[:n], _signed(key + _GAMMA * (start + at)), out=words[:n])
        out[2 * at : 2 * (at + n)] = mix_(made, spare[:n]).view(torch.int32).bitwise_right_shift_(13)
    return out[: torch.Size(shape).numel()].view(torch.Size(shape))


def positions(shape: Sequence[int]) -> int:
    """How many positions `draw` takes: two numbers are made from one."""
    return (torch.Size(shape).numel() + 1) // 2
