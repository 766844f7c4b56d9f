"""Fourier transforms: products with matrices of cosines and sines; see `foldproof.shadow.turns`."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.leaves import of_pairs
from foldproof.shadow.registry import complex_residues
from foldproof.shadow.residue import Residue, embed_fraction
from foldproof.shadow.turns import cosines, inverse_root, sines

aten = torch.ops.aten

MAX_LENGTH = 2048
"""Largest length of a transform by a matrix; a longer one is read as a whole."""

Pair = tuple[Residue, Residue]


@complex_residues(aten._fft_c2c.default)
def transform(call: Call, z: Tensor, dim: list[int], normalization: int, forward: bool) -> Any:
    """sums with the factors cos(2π·jk/n) ± i·sin(2π·jk/n)"""
    if _is_long(z, dim):
        return NotImplemented
    pair = _parts(call.residue(z))
    for d in dim:
        pair = _transformed(pair, d, forward)
    return _joined(call, pair, normalization, _count(z, dim))


@complex_residues(aten._fft_r2c.default)
def transform_real(call: Call, x: Tensor, dim: list[int], normalization: int, onesided: bool) -> Any:
    """the same of real numbers; one half is the conjugate of the other"""
    if _is_long(x, dim):
        return NotImplemented
    *others, last = dim
    n = x.shape[last]
    kept = n // 2 + 1 if onesided else n
    residue, (cos, sin) = call.residue(x), _matrices(call, n, n, kept)
    pair = _along(residue, last, cos), -_along(residue, last, sin)
    for d in others:
        pair = _transformed(pair, d, True)
    return _joined(call, pair, normalization, _count(x, dim))


@complex_residues(aten._fft_c2r.default)
def transform_to_real(call: Call, z: Tensor, dim: list[int], normalization: int, last_dim_size: int) -> Any:
    """the inverse of one half; the imaginary parts of the first and, if n is even, the last number have no effect"""
    *others, last = dim
    n = last_dim_size
    if _is_long(z, others) or n > MAX_LENGTH:
        return NotImplemented
    if z.shape[last] != n // 2 + 1:
        raise call.undecided(f"{z.shape[last]} numbers for a length of {n}")
    pair = _parts(call.residue(z))
    for d in others:
        pair = _transformed(pair, d, False)
    cos, sin = _matrices(call, n, n // 2 + 1, n)
    counts = torch.tensor([[1.0 if k in (0, n - k) else 2.0] for k in range(n // 2 + 1)], dtype=torch.float64)
    cos, sin = (x.total(lambda part: part * counts, 2) for x in (cos, sin))
    real = _along(pair[0], last, cos) - _along(pair[1], last, sin)
    return _seen(call, _scaled(call, real, normalization, n * _count(z, others)))


def _is_long(x: Tensor, dim: list[int]) -> bool:
    return any(x.shape[d] > MAX_LENGTH for d in dim)


def _count(x: Tensor, dim: list[int]) -> int:
    return math.prod(x.shape[d] for d in dim)


def _parts(z: Residue) -> Pair:
    pairs = z.view(torch.view_as_real)
    return pairs.map(lambda part: part[..., 0]), pairs.map(lambda part: part[..., 1])


def _joined(call: Call, pair: Pair, normalization: int, n: int) -> Residue:
    real, imaginary = (_seen(call, _scaled(call, x, normalization, n)) for x in pair)
    return of_pairs(real.map(lambda a, b: torch.stack([a, b], -1), imaginary))


def _scaled(call: Call, x: Residue, normalization: int, n: int) -> Residue:
    """Return the residue over 1, √n, or n."""
    if normalization == 0:
        return x
    return x * (inverse_root(call.point, n) if normalization == 1 else embed_fraction(call.point, Fraction(1, n)))


def _seen(call: Call, x: Residue) -> Residue:
    visited: Residue = x if call.point.visit is None else call.point.visit(x)
    return visited


def _transformed(pair: Pair, d: int, forward: bool) -> Pair:
    real, imaginary = pair
    n = real.shape[d]
    cos, sin = _matrices(real, n, n, n)
    sin = sin if forward else -sin
    return (
        _along(real, d, cos) + _along(imaginary, d, sin),
        _along(imaginary, d, cos) - _along(real, d, sin),
    )


def _matrices(of: Call | Residue, n: int, rows: int, columns: int) -> Pair:
    """Return the matrices of cos(2π·jk/n) and sin(2π·jk/n)."""
    point = of.point
    point.lengths.add(n)
    turns = [Fraction(j, n) for j in range(n)]
    at = torch.arange(rows)[:, None] * torch.arange(columns) % n

    def select(part: Tensor) -> Tensor:
        return part[at]

    return cosines(point, turns).map(select), sines(point, turns).map(select)


def _along(x: Residue, d: int, matrix: Residue) -> Residue:
    """Return the product with a matrix along one dimension."""
    function: Callable[[Tensor], Tensor] = lambda part: part.movedim(d, -1)  # noqa: E731
    return x.map(function).matmul(matrix).map(lambda part: part.movedim(-1, d))
