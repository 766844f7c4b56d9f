"""Uninterpreted functions: keyed hashes with a single known property, equal outputs for equal inputs."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.field.arithmetic import Field

_BLOCK = 1 << 13  # elements hashed at a time, so that the passes below run in cache


class UninterpretedFunction:
    """A pseudo-random function from m operands, each of k residues, to k residues, fixed by ``seed`` and ``key``.

    Two outputs come from one 64-bit word: a linear combination of all residues of all operands with 41-bit
    coefficients, independent for every word, mixed by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) and
    cut into numbers of 19 bits. Two different arguments give the same pair of outputs with probability at most
    2^-40 + 2^-38, which is below (2^-18)^2: with all other coefficients fixed, c·δ = t modulo 2^64 has at most one
    solution c of 41 bits for 0 < |δ| < 2^20, out of the 2^40 possible c. Outputs are the same in every process.
    """

    def __init__(self, seed: int, key: str, fields: Sequence[Field], nonzero: bool = False) -> None:
        self._seed, self._key, self._fields, self._nonzero = seed, key, fields, nonzero
        self._coefficients = functools.cache(self._draw_coefficients)

    def _draw_coefficients(self, operands: int) -> tuple[Tensor, Tensor]:
        """Return coefficients below 2^20 (two rows a word, one column a residue), and offsets of 45 bits."""
        columns, rows = operands * len(self._fields), len(self._fields) + len(self._fields) % 2
        digest = hashlib.shake_128(f"{self._seed}|{operands}|{self._key}".encode()).digest(rows * (3 * columns + 6))
        stream = memoryview(digest)
        matrix = torch.frombuffer(bytearray(stream[: 3 * rows * columns]), dtype=torch.uint8)
        limbs = matrix.view(rows, columns, 3).to(torch.float64) @ torch.tensor([1.0, 2.0**8, 2.0**16]).double()
        ends = stream[3 * rows * columns :]
        offsets = [float(int.from_bytes(ends[6 * i : 6 * i + 6], "big") >> 3) for i in range(rows)]
        return limbs.remainder_(2.0**20), torch.tensor(offsets, dtype=torch.float64)

    def __call__(self, operands: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """Return the k tensors of outputs at ``operands``, each a sequence of k balanced residues; they broadcast."""
        shape, k = torch.broadcast_shapes(*(operand[0].shape for operand in operands)), len(self._fields)
        total, device = math.prod(shape), operands[0][0].device
        matrix, offsets = self._coefficients(len(operands))
        full: list[int] = []
        for j, operand in enumerate(operands):
            if operand[0].numel() == 1 != total:  # a number: its share is the same for all elements
                columns = matrix[:, j * k : (j + 1) * k]
                offsets = offsets + columns @ torch.stack([x.reshape(()) for x in operand]).cpu()
            else:
                full.append(j)
        matrix = torch.cat([*(matrix[:, j * k : (j + 1) * k] for j in full), offsets.unsqueeze(1)], 1).to(device)
        flat = [x.expand(shape).reshape(-1) for j in full for x in operands[j]]
        out = torch.empty(len(matrix), total, dtype=torch.float64, device=device)
        size = min(_BLOCK, total)
        block = torch.ones(len(flat) + 1, size, dtype=torch.float64, device=device)
        limbs = torch.empty(len(matrix), size, dtype=torch.float64, device=device)
        words, spare = torch.empty(2, len(matrix) // 2, size, dtype=torch.int64, device=device)
        for start in range(0, total, _BLOCK):
            n = min(size, total - start)
            if n < size:
                block, limbs, words, spare = (x[:, :n] for x in (block, limbs, words, spare))
            for x, row in zip(flat, block):
                row.copy_(x[start : start + n])
            # Products are below 2^40, and few of them are added: float64 is exact.
            torch.mm(matrix, block, out=limbs)
            torch.add(spare.copy_(limbs[::2]), words.copy_(limbs[1::2]), alpha=1 << 21, out=words)
            out[::2, start : start + n] = torch.bitwise_right_shift(_mix_(words, spare), 45, out=spare)
            # The first output uses upper bits only, and the last step of mixing leaves those alone.
            words.bitwise_xor_(torch.bitwise_right_shift(words, 31, out=spare))
            out[1::2, start : start + n] = words.bitwise_left_shift_(32).bitwise_right_shift_(45)
        if self._nonzero:
            out.add_(out >= 0)  # still 2^19 values, and still below p/2
        return tuple(x.view(shape) for x in out[:k])


def mix(words: Tensor) -> Tensor:
    """Return int64 ``words``, mixed by SplitMix64's finaliser: a permutation of them that looks random."""
    return _mix_(words.clone(), torch.empty_like(words))


def _mix_(words: Tensor, spare: Tensor) -> Tensor:
    """Mix int64 ``words`` in place with SplitMix64's finaliser (Stafford's variant 13), except for its last step.

    ``spare`` is scratch space of the same shape. torch shifts arithmetically, so each round may lose one of
    64 bits.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64))):
        words.bitwise_xor_(torch.bitwise_right_shift(words, shift, out=spare)).mul_(factor)
    return words
