"""Arithmetic on scales and shifts: expressions, or None for a scale of 1 and a shift of 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.rewriting.expression import Expression, Operand

UNREAD = -1
"""Channel of an element that nothing reads, which may get any scale and shift."""


def product(a: Operand, b: Operand) -> Operand:
    """Return the scale a·b."""
    if a is None or b is None:
        return b if a is None else a
    return Expression(multiply, (a, b))


def scaled(shift: Operand, scale: Operand) -> Operand:
    """shift·scale."""
    return None if shift is None else product(shift, scale)


def total(a: Operand, b: Operand) -> Operand:
    """Return the shift a + b."""
    if a is None or b is None:
        return b if a is None else a
    return Expression(add, (a, b))


def number(value: float) -> Expression:
    """Return a vector of one number."""
    return Expression(one_number, (float(value),))


def flat(tensor: Operand) -> Expression:
    return Expression(reshape, (tensor, (-1,)))


def reshaped(tensor: Operand, shape: tuple[int, ...]) -> Operand:
    return None if tensor is None else Expression(reshape, (tensor, shape))


def taken(vector: Operand, index: Tensor, neutral: float) -> Operand:
    """Return the entries of ``vector`` at ``index``, and ``neutral`` at `UNREAD`."""
    return None if vector is None else Expression(take, (vector, tuple(index.tolist()), neutral))


def joined(vectors: Sequence[Operand], counts: Sequence[int], neutral: float) -> Operand:
    """Return vectors with these numbers of entries end to end, and ``neutral`` for those that are None."""
    if all(vector is None for vector in vectors):
        return None
    return Expression(join, (tuple(counts), neutral, *vectors))


def multiply(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def one_number(value: float) -> Tensor:
    return torch.zeros(1, dtype=torch.float64) + value  # zeros of a proof carry residues, which make 1/value exact


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(shape)


def pad_rows(x: Tensor, count: int) -> Tensor:
    """Return ``x`` with so many rows of zeros behind its own."""
    return torch.cat([x, x.new_zeros((count, *x.shape[1:]))])


def join(counts: tuple[int, ...], neutral: float, *vectors: Tensor | None) -> Tensor:
    like = next(vector for vector in vectors if vector is not None)
    return torch.cat([like.new_full((n,), neutral) if v is None else v for v, n in zip(vectors, counts, strict=True)])


def take(vector: Tensor, index: tuple[int, ...], neutral: float) -> Tensor:
    if UNREAD in index:  # -1 reads the last entry, appended here
        vector = torch.cat([vector, torch.full_like(vector[:1], neutral)])
    return vector[torch.tensor(index, device=vector.device)]
