"""Random whole numbers in [-2^18, 2^18): 2^19 values, different modulo each prime, and reduced already.

The lemma of Schwartz and Zippel holds for points from any set, with its size in place of p. The source is a Mersenne
twister: Python's for few numbers, PyTorch's (with a seed of only 32 bits) for many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

DRAWN = 1 << 19
"""Number of values that a random residue may have."""

_BLOCK = 1 << 15  # words drawn at a time, so that the passes run in cache


def few(shape: Sequence[int], rng: random.Random) -> Tensor:
    """Return a float64 tensor of ``shape``, from the next words of ``rng``."""
    total = torch.Size(shape).numel()
    if not total:
        return torch.empty(shape, dtype=torch.float64)
    words = torch.frombuffer(bytearray(rng.randbytes(4 * total)), dtype=torch.int32)
    return words.bitwise_right_shift_(13).to(torch.float64).view(shape)


def many(shape: Sequence[int], seed: int) -> Tensor:
    """Return a float64 tensor of ``shape``, a function of the 32-bit ``seed``."""
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


def residues(shape: Sequence[int], generator: torch.Generator, p: int) -> Tensor:
    """Return a float64 tensor of ``shape`` of balanced residues modulo ``p``, all equally likely.

    Words of 20 bits that are no residues are drawn again.
    """
    total = torch.Size(shape).numel()
    out = torch.empty(total, dtype=torch.float64)
    done = 0
    while done < total:
        words = torch.empty(min(_BLOCK, 2 * (total - done) + 64), dtype=torch.int64)
        words.random_(0, 1 << 60, generator=generator)
        pieces = torch.cat([words & 0xFFFFF, (words >> 20) & 0xFFFFF, words >> 40])
        kept = pieces[pieces < p][: total - done]
        out[done : done + kept.numel()] = kept
        done += kept.numel()
    return out.sub_(p // 2).view(shape)
