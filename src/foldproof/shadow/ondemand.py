"""Residues that are computed on each access instead of stored."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from torch import Tensor


class OnDemand(Sequence[Tensor]):
    """The k residues of a large leaf, or of a view of one; each access computes the same ones.

    Stored, they would take k times the memory of the parameters, and allocating it takes longer than drawing numbers.
    They are read-only. ``like`` is a meta tensor of their shape and strides. ``computed`` marks those that arithmetic
    made of a leaf's.
    """

    def __init__(
        self,
        like: Tensor,
        k: int,
        make: Callable[[int], Tensor],
        origin: OnDemand | None = None,
        computed: bool = False,
    ) -> None:
        self.like, self._k, self._make, self._origin, self.computed = like, k, make, origin or self, computed

    def __len__(self) -> int:
        return self._k

    def __getitem__(self, i: Any) -> Any:
        return self._make(range(self._k)[i])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._make, range(self._k))

    def view(self, function: Callable[[Tensor], Tensor]) -> OnDemand:
        return OnDemand(function(self.like), self._k, lambda i: function(self._make(i)), self._origin, self.computed)

    @property
    def identity(self) -> Hashable:
        """Return a key that is equal for equal views of one leaf."""
        like = self.like
        return self._origin, like.shape, like.stride(), like.storage_offset()
