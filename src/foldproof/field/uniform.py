"""Random whole numbers in [-2^18, 2^18): 2^19 of them, different modulo each of our primes, and reduced as they are.

The lemma of Schwartz and Zippel holds for points drawn from any set, with its size in the place of p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DRAWN = 1 << 19
"""How many values a residue that is drawn may have."""

_BLOCK = 1 << 15  # words drawn at a time, so that the passes run in cache


def uniform(shape: Sequence[int], seed: int) -> Tensor:
    """A float64 tensor of ``shape``, the same for the same ``seed`` (of 32 bits, which is what PyTorch takes in).

    Two numbers are made of one word of PyTorch's Mersenne twister, which is faster than to ask it for each.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.Size(shape).numel()
    out = torch.empty(total + total % 2, dtype=torch.float64)
    words = torch.empty(min(_BLOCK, len(out) // 2), dtype=torch.int64)
    for start in range(0, len(out), 2 * _BLOCK):
        some = words[: (len(out) - start) // 2].random_(-(1 << 63), None, generator=generator)
        out[start : start + 2 * len(some)] = some.view(torch.int32).bitwise_right_shift_(13)
    return out[:total].view(torch.Size(shape))
