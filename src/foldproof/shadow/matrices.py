"""Random matrices that are drawn as far as programs look at them.

A proof for all weights draws the residues of each matrix at random, and mostly looks at them through a few products
x·W. Drawing them takes longer than everything else, and a model of 8 billion parameters takes minutes for each prime.

The first product x·W with a uniformly random W is itself uniformly random, if the rows of x are linearly independent,
and whatever x is. So the product is drawn, and the matrix is not. Later products are linear combinations of those that
are known, as far as their rows are combinations of known rows; the rest is drawn. The joint distribution is that of a
matrix drawn in advance and multiplied: each step draws from the distribution of the new products given the known ones,
which is uniform. If a program looks at the whole matrix, it is drawn given the known products, and multiplied from then
on.

Rows of W that are looked up, as those of an embedding are, are drawn one by one, given the known products x·Wᵀ; later
products have the elements that follow from them. So a table is not drawn whole, though logits are computed with it.

The known rows are kept in reduced row echelon form. Row i has a 1 in its pivot column, and no other row has anything
there, so that the coordinates of x are its elements in the pivot columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foldproof.field import Field, many, residues

_MAX_ROWS = 64
"""Largest number of rows of a product that is drawn; elimination takes time quadratic in it."""
_MIN_RATIO = 8
"""A matrix is drawn whole once the known rows are more than this part of its size."""


@dataclass
class _Known:
    """Products with a matrix modulo one prime: ``rows``·W = ``products``, with ``pivots`` as above."""

    rows: Tensor
    pivots: Tensor
    products: Tensor


class Matrix:
    """A random matrix W of ``shape`` (n, m) modulo each prime, seen through products x·W or x·Wᵀ.

    The first product decides from which side: the other takes the whole matrix.
    """

    def __init__(self, fields: Sequence[Field], shape: Sequence[int], seeds: Sequence[int]) -> None:
        self.fields, self.shape = fields, (shape[0], shape[1])
        self._seeds = seeds
        self._generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
        self._side: bool | None = None
        self._is_drawn = False
        self._known: list[_Known] = []
        self._rows: dict[int, list[Tensor]] = {}
        """Rows of W that were looked up, modulo each prime."""

    def times(self, x: Sequence[Tensor], transposed: bool) -> list[Tensor] | None:
        """Return x·W (x·Wᵀ, if ``transposed``) modulo each prime, for x of shape (…, n); None if W is needed whole."""
        if self._is_drawn:
            return None
        n, m = reversed(self.shape) if transposed else self.shape
        count = x[0].numel() // max(n, 1)
        rank = self._known[0].rows.shape[0] if self._known else 0
        if self._side not in (None, transposed) or count > _MAX_ROWS:
            return None
        rows = [part.reshape(count, n).cpu() for part in x]
        if (rank + count) * _MIN_RATIO > min(n, m) and not (rank and all(map(self._knows, range(len(x)), rows))):
            return None
        if self._side is None:
            if self._rows and not transposed:
                return None
            self._side = transposed
            none = torch.zeros(0, dtype=torch.float64)
            self._known = [_Known(none.new_zeros(0, n), none.long(), none.new_zeros(0, m)) for _ in self.fields]
        made = [self._times(i, part) for i, part in enumerate(rows)]
        return [part.reshape(*x[0].shape[:-1], m).to(x[0].device) for part in made]

    def lookup(self, at: Tensor) -> list[Tensor] | None:
        """Return the rows of W with these indices modulo each prime; None if W is needed whole."""
        picked, back = torch.unique(at.cpu(), return_inverse=True)
        indices = picked.tolist()
        if self._is_drawn or self._side is False or len(self._rows.keys() | {*indices}) > _MAX_ROWS:
            return None
        for index in indices:
            if index not in self._rows:
                self._rows[index] = [self._row(i, index) for i in range(len(self.fields))]
        stacked = zip(*(self._rows[index] for index in indices))
        return [torch.stack(rows)[back].to(at.device) for rows in stacked]

    def _row(self, i: int, index: int) -> Tensor:
        """Draw a row of W, given the known products x·Wᵀ."""
        field = self.fields[i]
        out = residues((1, self.shape[1]), self._generators[i], field.p)
        if self._known:
            known = self._known[i]
            out[0, known.pivots] = 0
            out[0, known.pivots] = field.reduce(known.products[:, index] - product(field, known.rows, out.t())[:, 0])
        return out[0]

    def whole(self, i: int) -> Tensor:
        """Return W modulo the i-th prime, and take products from it from now on."""
        self._is_drawn = True
        if not self._known and not self._rows:
            return many(self.shape, self._seeds[i])  # no product has to fit, which takes uniform residues
        field = self.fields[i]
        out = residues(self.shape, torch.Generator().manual_seed(self._seeds[i]), field.p)
        if self._known:
            known, oriented = self._known[i], out.t() if self._side else out
            oriented[known.pivots] = 0
            oriented[known.pivots] = field.reduce(known.products - product(field, known.rows, oriented))
        for index, rows in self._rows.items():
            out[index] = rows[i]
        return out

    def _knows(self, i: int, x: Tensor) -> bool:
        """Return True if the rows of x are linear combinations of known rows modulo the i-th prime."""
        return not bool(self._beyond(i, x).any())

    def _beyond(self, i: int, x: Tensor) -> Tensor:
        """Return x less the combinations of known rows that agree with it in the pivot columns."""
        field, known = self.fields[i], self._known[i]
        return field.reduce(x - product(field, x[:, known.pivots], known.rows))

    def _times(self, i: int, x: Tensor) -> Tensor:
        field, known = self.fields[i], self._known[i]
        out = product(field, x[:, known.pivots], known.products)
        rest = self._beyond(i, x)
        rows, pivots = echelon(field, rest)
        if not len(rows):
            return out
        drawn = residues((len(rows), known.products.shape[1]), self._generators[i], field.p)
        for index, row in self._rows.items():
            drawn[:, index] = product(field, rows, row[i].unsqueeze(1))[:, 0]
        out = field.reduce(out + product(field, rest[:, pivots], drawn))
        shared = known.rows[:, pivots]
        self._known[i] = _Known(
            torch.cat([field.reduce(known.rows - product(field, shared, rows)), rows]),
            torch.cat([known.pivots, pivots]),
            torch.cat([field.reduce(known.products - product(field, shared, drawn)), drawn]),
        )
        return out


def product(field: Field, x: Tensor, y: Tensor) -> Tensor:
    """Return the product of two matrices of residues."""
    out = torch.zeros(x.shape[0], y.shape[1], dtype=torch.float64)
    for start in range(0, x.shape[1], 1 << 12):
        piece = slice(start, start + (1 << 12))
        out = field.reduce(out + x[:, piece] @ y[piece])
    return out


def echelon(field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the reduced row echelon form of ``x`` modulo a prime, without rows of zeros, and its pivot columns."""
    x, pivots, found = x.clone(), list[int](), list[int]()
    for i in range(x.shape[0]):
        nonzero = x[i] != 0
        if not bool(nonzero.any()):
            continue
        pivot = int(nonzero.to(torch.int8).argmax())
        x[i] = field.reduce(x[i] * field.inverse(x[i, pivot]))
        column = x[:, pivot].clone()
        column[i] = 0
        x = field.reduce(x - column[:, None] * x[i])
        pivots.append(pivot)
        found.append(i)
    return x[found], torch.tensor(pivots, dtype=torch.int64)
