"""Keyed functions that stand for operators of which nothing is assumed but that equal inputs give equal outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.field.arithmetic import Field

_BLOCK = 1 << 16  # elements hashed at a time, so that the passes below run in cache


class OpaqueFunction:
    """A pseudo-random function from m operands, each of k residues, to k residues, fixed by ``seed`` and ``key``.

    All k residues of every operand enter each of the k outputs, so that two different arguments give the same result
    only if all k outputs meet: chance about p^-k. Output i mixes an integer combination (coefficients below 2^20,
    independent for every i) with a 64-bit finaliser (Stafford's variant of splitmix64). The same in every process.
    """

    def __init__(self, seed: int, key: str, fields: Sequence[Field], nonzero: bool = False) -> None:
        self._seed, self._key, self._fields, self._nonzero = seed, key, fields, nonzero

    def _coefficients(self, operands: int) -> list[list[int]]:
        """k rows: operands * k coefficients and one 63-bit offset."""
        rows = []
        for i in range(len(self._fields)):
            digest = hashlib.shake_128(f"{self._seed}|{i}|{operands}|{self._key}".encode())
            stream = digest.digest(3 * operands * len(self._fields) + 8)
            row = [int.from_bytes(stream[3 * j : 3 * j + 3], "big") >> 4 | 1 for j in range(operands * len(self._fields))]
            rows.append([*row, int.from_bytes(stream[-8:], "big") >> 1])
        return rows

    def __call__(self, operands: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """Apply to ``operands``, each a sequence of k float64 tensors, all of one shape; returns k such tensors."""
        rows = self._coefficients(len(operands))
        shape = operands[0][0].shape
        flat = [x.reshape(-1) for operand in operands for x in operand]
        owners = [self._fields[j % len(self._fields)] for j in range(len(flat))]
        out = [torch.empty(flat[0].shape, dtype=torch.float64, device=flat[0].device) for _ in self._fields]
        for start in range(0, flat[0].numel(), _BLOCK):
            block = [f.canonical(x[start : start + _BLOCK]) for f, x in zip(owners, flat)]
            for field, row, result in zip(self._fields, rows, out):
                mixed = block[0] * row[0]
                for x, coefficient in zip(block[1:], row[1:]):
                    mixed.add_(x, alpha=coefficient)
                bits = _finalise(mixed.to(torch.int64).add_(row[-1]))
                range_ = field.p - 1 if self._nonzero else field.p
                value = bits.bitwise_and_((1 << 52) - 1).to(torch.float64)
                # floor(value * range / 2^52) is uniform up to 2^-32 and needs no remainder
                value.mul_(range_ * 2.0**-52).floor_()
                if self._nonzero:
                    value.add_(1)
                result[start : start + _BLOCK] = field.reduce(value)
        return tuple(x.view(shape) for x in out)


def _finalise(x: Tensor) -> Tensor:
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB), (31, 0x2545F4914F6CDD1D)):
        x.bitwise_xor_(x >> shift).mul_(factor)
    return x.bitwise_xor_(x >> 32)
