"""Arithmetic on scales and shifts: expressions for tensors that are given, or None where they are 1 (0, of a shift)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.rewriting.expression import Expression, Operand

UNREAD = -1
"""The channel of an element that nothing reads: any scale and shift will do."""


def product(a: Operand, b: Operand) -> Operand:
    """a·b of two scales."""
    if a is None or b is None:
        return b if a is None else a
    return Expression(multiply, (a, b))


def scaled(shift: Operand, scale: Operand) -> Operand:
    """shift·scale."""
    return None if shift is None else product(shift, scale)


def total(a: Operand, b: Operand) -> Operand:
    """a + b of two shifts."""
    if a is None or b is None:
        return b if a is None else a
    return Expression(add, (a, b))


def number(value: float) -> Expression:
    """A vector of one number."""
    return Expression(one_number, (float(value),))


def flat(tensor: Operand) -> Expression:
    return Expression(reshape, (tensor, (-1,)))


def reshaped(tensor: Operand, shape: tuple[int, ...]) -> Operand:
    return None if tensor is None else Expression(reshape, (tensor, shape))


def taken(vector: Operand, index: Tensor, neutral: float) -> Operand:
    """The entries of ``vector`` at ``index``, and ``neutral`` where that is `UNREAD`."""
    return None if vector is None else Expression(take, (vector, tuple(index.tolist()), neutral))


def joined(vectors: Sequence[Operand], counts: Sequence[int], neutral: float) -> Operand:
    """Vectors of so many entries end to end, with ``neutral`` for those that are None."""
    if all(vector is None for vector in vectors):
        return None
    return Expression(join, (tuple(counts), neutral, *vectors))


def multiply(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def one_number(value: float) -> Tensor:
    return torch.zeros(1, dtype=torch.float64) + value  # zeros of a proof carry residues, so that 1/value is exact


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(shape)


def join(counts: tuple[int, ...], neutral: float, *vectors: Tensor | None) -> Tensor:
    like = next(vector for vector in vectors if vector is not None)
    return torch.cat([like.new_full((n,), neutral) if v is None else v for v, n in zip(vectors, counts, strict=True)])


def take(vector: Tensor, index: tuple[int, ...], neutral: float) -> Tensor:
    if UNREAD in index:  # the last entry
        vector = torch.cat([vector, torch.full_like(vector[:1], neutral)])
    return vector[torch.tensor(index, device=vector.device)]
