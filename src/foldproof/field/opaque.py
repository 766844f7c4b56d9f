"""Keyed functions that stand for operators of which nothing is assumed but that equal inputs give equal outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.field.arithmetic import Field

_BLOCK = 1 << 13  # elements hashed at a time, so that the passes below run in cache


class OpaqueFunction:
    """A pseudo-random function from m operands, each of k residues, to k residues, fixed by ``seed`` and ``key``.

    All k residues of every operand enter each of the k outputs, so that two different arguments give the same result
    only if all k outputs meet: chance about p^-k. Output i mixes an integer combination (coefficients below 2^20,
    independent for every i) with a 64-bit finaliser (Stafford's variant of splitmix64). The same in every process.
    """

    def __init__(self, seed: int, key: str, fields: Sequence[Field], nonzero: bool = False) -> None:
        self._seed, self._key, self._fields, self._nonzero = seed, key, fields, nonzero

    def _coefficients(self, operands: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """A (k, operands * k) matrix of whole numbers below 2^20, and k offsets of 63 bits, as a column."""
        columns = operands * len(self._fields)
        rows, offsets = [], []
        for i in range(len(self._fields)):
            digest = hashlib.shake_128(f"{self._seed}|{i}|{operands}|{self._key}".encode())
            stream = digest.digest(3 * columns + 8)
            rows.append([int.from_bytes(stream[3 * j : 3 * j + 3], "big") >> 4 | 1 for j in range(columns)])
            offsets.append([int.from_bytes(stream[-8:], "big") >> 1])
        return torch.tensor(rows, dtype=torch.float64, device=device), torch.tensor(offsets, device=device)

    def __call__(self, operands: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """Apply to ``operands``, each a sequence of k float64 tensors, which broadcast; returns k tensors."""
        shape, k = torch.broadcast_shapes(*(operand[0].shape for operand in operands)), len(self._fields)
        total, device = math.prod(shape), operands[0][0].device
        matrix, offsets = self._coefficients(len(operands), device)
        full = [j for j, operand in enumerate(operands) if operand[0].numel() == total]
        for j, operand in enumerate(operands):
            if j not in full and operand[0].numel() == 1:  # a number, the same for all elements
                number = torch.stack([f.canonical(x.reshape(1)) for f, x in zip(self._fields, operand)])
                offsets = offsets + (matrix[:, j * k : (j + 1) * k] @ number).to(torch.int64)
            elif j not in full:
                full.append(j)
        columns = [c for j in full for c in range(j * k, (j + 1) * k)]
        flat = [operands[c // k][c % k].expand(shape).reshape(-1) for c in columns]
        matrix = matrix[:, columns].contiguous()
        primes = torch.tensor([[float(f.p)] for f in self._fields], dtype=torch.float64, device=device)
        ranges = primes - 1 if self._nonzero else primes
        out = [torch.empty(total, dtype=torch.float64, device=device) for _ in self._fields]
        block = torch.empty(len(flat), min(_BLOCK, max(total, 1)), dtype=torch.float64, device=device)
        for start in range(0, total, _BLOCK):
            n = min(_BLOCK, total - start)
            for c, x, row in zip(columns, flat, block):
                self._fields[c % k].canonical(x[start : start + n], out=row[:n])
            # Products are below 2^40 and there are few of them: exact in float64.
            bits = _finalise((matrix @ block[:, :n]).to(torch.int64).add_(offsets))
            # floor(uniform * range / 2^52) is uniform up to 2^-32 and needs no remainder.
            value = bits.bitwise_and_((1 << 52) - 1).to(torch.float64).mul_(ranges * 2.0**-52).floor_()
            if self._nonzero:
                value.add_(1)
            value.sub_((value > primes / 2) * primes)  # balanced
            for result, made in zip(out, value):
                result[start : start + n] = made
        return tuple(x.view(shape) for x in out)


def _finalise(x: Tensor) -> Tensor:
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB), (31, 0x2545F4914F6CDD1D)):
        x.bitwise_xor_(x >> shift).mul_(factor)
    return x.bitwise_xor_(x >> 32)
