"""Random whole numbers in [-2^18, 2^18): 2^19 of them, different modulo each of our primes, and reduced as they are.

The lemma of Schwartz and Zippel holds for points drawn from any set, with its size in the place of p. All come from
Mersenne twisters: Python's for few numbers, PyTorch's, which is started by 32 bits only, for many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

DRAWN = 1 << 19
"""How many values a residue that is drawn may have."""

_BLOCK = 1 << 15  # words drawn at a time, so that the passes run in cache


def few(shape: Sequence[int], rng: random.Random) -> Tensor:
    """A float64 tensor of ``shape``, from the next words of ``rng``."""
    total = torch.Size(shape).numel()
    if not total:
        return torch.empty(shape, dtype=torch.float64)
    words = torch.frombuffer(bytearray(rng.randbytes(4 * total)), dtype=torch.int32)
    return words.bitwise_right_shift_(13).to(torch.float64).view(shape)


def many(shape: Sequence[int], seed: int) -> Tensor:
    """A float64 tensor of ``shape``, the same for the same ``seed`` of 32 bits."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.Size(shape).numel()
    pairs = (total + 1) // 2
    out = torch.empty(2 * pairs, dtype=torch.float64)
    words = torch.empty(min(_BLOCK, pairs), dtype=torch.int64)
    for start in range(0, pairs, _BLOCK):
        n = min(_BLOCK, pairs - start)
        words[:n].random_(-(1 << 63), None, generator=generator)
        out[2 * start : 2 * (start + n)] = words[:n].view(torch.int32).bitwise_right_shift_(13)
    return out[:total].view(shape)
