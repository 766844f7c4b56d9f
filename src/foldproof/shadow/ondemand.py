"""Residues that are computed on each access instead of stored."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from torch import Tensor

from foldproof.shadow.matrices import Matrix


class OnDemand(Sequence[Tensor]):
    """The k residues of a large leaf, or of a view of one; each access computes the same ones.

    Stored, they would take k times the memory of the parameters, and allocating it takes longer than drawing numbers.
    They are read-only. ``like`` is a meta tensor of their shape and strides. ``computed`` marks those that arithmetic
    made of a leaf's. ``matrix`` draws a leaf that is a matrix.
    """

    def __init__(
        self,
        like: Tensor,
        k: int,
        make: Callable[[int], Tensor],
        origin: OnDemand | None = None,
        computed: bool = False,
        matrix: Matrix | None = None,
    ) -> None:
        self.like, self._k, self._make, self._origin, self.computed = like, k, make, origin or self, computed
        self._matrix = matrix

    def __len__(self) -> int:
        return self._k

    def __getitem__(self, i: Any) -> Any:
        return self._make(range(self._k)[i])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._make, range(self._k))

    def view(self, function: Callable[[Tensor], Tensor]) -> OnDemand:
        return OnDemand(function(self.like), self._k, lambda i: function(self._make(i)), self._origin, self.computed)

    @property
    def matrix(self) -> tuple[Matrix, bool] | None:
        """The random matrix that this is, or is the transpose of (True), if it is drawn as far as it is looked at."""
        matrix, own, like = self._origin._matrix, self._origin.like, self.like
        if matrix is None or self.computed or like.ndim != 2 or like.storage_offset() != own.storage_offset():
            return None
        for transposed, same in ((False, own), (True, own.t())):
            if (like.shape, like.stride()) == (same.shape, same.stride()):
                return matrix, transposed
        return None

    @property
    def identity(self) -> Hashable:
        """Return a key that is equal for equal views of one leaf."""
        like = self.like
        return self._origin, like.shape, like.stride(), like.storage_offset()
