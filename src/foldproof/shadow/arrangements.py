"""Matrices whose rows are rows or columns of other matrices.

The conversion of a checkpoint permutes the rows of a weight, cuts it, or stacks several. Products with what it makes
are rows of products with the given ones, which are known mostly, and need not be drawn (`foldproof.shadow.matrices`).

The rows are found by sending numbers through the conversion in place of the elements, and looking where each lands.
Every element is compared, so that a conversion that moves a single one elsewhere makes no arrangement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foldproof.field import Field
from foldproof.shadow.matrices import Matrix, product

Root = Matrix | Sequence[Tensor] | None
"""A matrix that rows are taken from: one that is drawn, or residues that are known; None for anything else."""
_MAX_NUMBERS = 1 << 31


@dataclass(frozen=True)
class _Piece:
    """The rows at ``places`` are the rows (or ``columns``) of ``root`` with these ``numbers``."""

    root: Matrix | Sequence[Tensor]
    columns: bool
    numbers: Tensor
    places: Tensor

    def products(self, fields: Sequence[Field], x: Sequence[Tensor]) -> list[Tensor]:
        """Return the products of x, of shape (…, n), with each row."""
        made = self.root.times(x, not self.columns) if isinstance(self.root, Matrix) else None
        if made is not None:
            return [part[..., self.numbers] for part in made]
        return [_product(f, part, self._rows(i).t()) for i, (f, part) in enumerate(zip(fields, x))]

    def total(self, fields: Sequence[Field], x: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of all rows with the elements of x, of shape (…, rows), as coefficients."""
        if isinstance(self.root, Matrix):
            n = self.root.shape[1 if self.columns else 0]
            own = [part.new_zeros(*part.shape[:-1], n).index_add_(-1, self.numbers, part) for part in x]
            made = self.root.times([f.reduce_(part) for f, part in zip(fields, own)], self.columns)
            if made is not None:
                return made
        return [_product(f, part, self._rows(i)) for i, (f, part) in enumerate(zip(fields, x))]

    def _rows(self, i: int) -> Tensor:
        """Return the rows modulo the i-th prime."""
        known = self.root.whole(i) if isinstance(self.root, Matrix) else self.root[i]
        return known[:, self.numbers].t() if self.columns else known[self.numbers]


def _product(field: Field, x: Tensor, y: Tensor) -> Tensor:
    return product(field, x.reshape(-1, x.shape[-1]), y).view(*x.shape[:-1], y.shape[1])


class Arrangement:
    """The matrix with so many ``rows`` that consists of ``pieces``; or its transpose does, if ``flipped``."""

    def __init__(self, fields: Sequence[Field], rows: int, pieces: Sequence[_Piece], flipped: bool) -> None:
        self._fields, self._rows, self._pieces, self._flipped = fields, rows, pieces, flipped

    def times(self, x: Sequence[Tensor], transposed: bool) -> list[Tensor]:
        """Return x·W (x·Wᵀ, if ``transposed``) modulo each prime."""
        return self._products(x) if transposed != self._flipped else self._total(x)

    def _products(self, x: Sequence[Tensor]) -> list[Tensor]:
        out = [part.new_empty(*part.shape[:-1], self._rows) for part in x]
        for piece in self._pieces:
            for whole, part in zip(out, piece.products(self._fields, x)):
                whole[..., piece.places] = part
        return out

    def _total(self, x: Sequence[Tensor]) -> list[Tensor]:
        first, *others = (piece.total(self._fields, [part[..., piece.places] for part in x]) for piece in self._pieces)
        for other in others:
            first = [f.reduce_(a + b) for f, a, b in zip(self._fields, first, other)]
        return first

    def lookup(self, at: Tensor) -> list[Tensor] | None:
        """Return the rows of W with these indices modulo each prime; None if W is needed whole."""
        (piece, *others) = self._pieces
        if others or self._flipped or piece.columns or not isinstance(piece.root, Matrix):
            return None
        numbers = torch.empty_like(piece.numbers)
        numbers[piece.places] = piece.numbers
        return piece.root.lookup(numbers[at.cpu()].to(at.device))


def _shape(root: Matrix | Sequence[Tensor]) -> Sequence[int]:
    return root.shape if isinstance(root, Matrix) else root[0].shape


class _NoMatrix(Exception):
    pass


def find_arrangement(
    number: Callable[[Callable[[Sequence[int], Root], Tensor]], Tensor],
) -> Arrangement | None:
    """Return the arrangement that a function of matrices makes; None if it is no matrix of their rows or columns.

    ``number`` applies the function to numbers in place of the elements, which it gets from its argument for each root.
    """
    roots: list[tuple[int, Matrix | Sequence[Tensor]]] = []
    total = 0

    def numbers(own: Sequence[int], root: Root) -> Tensor:
        nonlocal total
        start, total = total, total + torch.Size(own).numel()
        if root is None or len(own) != 2 or total >= _MAX_NUMBERS:
            raise _NoMatrix
        roots.append((start, root))
        return torch.arange(start, total, dtype=torch.int32).view(own)

    try:
        found = number(numbers)
    except _NoMatrix:
        return None
    fields = next((root.fields for _, root in roots if isinstance(root, Matrix)), None)
    if fields is None or found.ndim != 2:
        return None
    for flipped in (False, True):
        rows = found.t() if flipped else found
        pieces = _pieces(rows, roots)
        if pieces is not None:
            return Arrangement(fields, len(rows), pieces, flipped)
    return None


def _pieces(found: Tensor, roots: Sequence[tuple[int, Matrix | Sequence[Tensor]]]) -> list[_Piece] | None:
    """Return the pieces of a matrix of numbers; None if it is made of anything but whole rows and columns."""
    width = found.shape[1]
    if width < 2:
        return None
    firsts, steps = found[:, 0].to(torch.int64), (found[:, 1] - found[:, 0]).to(torch.int64)
    at = torch.bucketize(firsts, torch.tensor([start for start, _ in roots]), right=True) - 1
    pieces = []
    for j, (start, root) in enumerate(roots):
        places = torch.nonzero(at == j).flatten()
        if not len(places):
            continue
        n, m = _shape(root)
        numbers, step = firsts[places] - start, int(steps[places[0]])
        columns = step == m and width == n and bool((numbers < m).all())
        if not columns and not (step == 1 and width == m and bool((numbers % m == 0).all())):
            return None
        steps[places] -= step
        pieces.append(_Piece(root, columns, numbers if columns else numbers // m, places))
    # Now the steps are 0, and each row is known from its first two numbers: compare all others.
    if bool(steps.any()):
        return None
    steps = found[:, 1:2] - found[:, :1]
    line = torch.arange(width, dtype=torch.int32)
    for start in range(0, len(found), _ROWS):
        rows = slice(start, start + _ROWS)
        if not torch.equal(found[rows], torch.addcmul(found[rows, :1], steps[rows], line)):
            return None
    return pieces


_ROWS = 32
"""Number of rows that are compared at a time, in cache."""
