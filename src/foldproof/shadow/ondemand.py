"""Residues that are computed on each access instead of stored.

Stored, the residues of parameters would take k times the memory of the parameters in float64, and allocating it takes
longer than drawing numbers. What is only selected and rearranged from them, as the conversion of a checkpoint does, is
rearranged on each access, too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foldproof.layout import laid_out_like
from foldproof.shadow.arrangements import Arrangement, Root, find_arrangement
from foldproof.shadow.matrices import Matrix

Map = Callable[..., Tensor]


@dataclass(eq=False)
class Made:
    """Residues that are made anew for each access, and never change.

    Attributes:
        like: a meta tensor of their shape and strides.
        k: the number of primes.
        make: a function of a prime's number, which returns the residues modulo that prime.
        matrix: draws a leaf that is a matrix.
        operands: the residues that these are selected and rearranged from, if they are no leaf's.
        rearrange: the function of the operands that does it.
        computed: True if arithmetic made them.
    """

    like: Tensor
    k: int
    make: Callable[[int], Tensor]
    matrix: Matrix | None = None
    operands: tuple[Sequence[Tensor], ...] = ()
    rearrange: Map | None = None
    computed: bool = False
    arrangements: dict[Hashable, Arrangement | None] = field(default_factory=dict)
    """The rows of leaves that views of rearranged residues consist of, by layout."""

    def numbered(self, root: Callable[[Sequence[int], Root], Tensor]) -> Tensor:
        """Return what becomes of numbers in place of the elements; ``root`` gives those of each leaf."""
        if self.rearrange is None:
            return root(self.like.shape, self.matrix)
        return self.rearrange(
            *(x.numbered(root) if isinstance(x, OnDemand) else root(x[0].shape, x) for x in self.operands)
        )


@dataclass(eq=False)
class Memory:
    """The residues of a tensor that a program may write to; they are stored once a part of them is written to.

    ``content`` never changes while it is on demand, and is laid out like ``like``.
    """

    like: Tensor
    k: int
    content: Sequence[Tensor]

    def make(self, i: int) -> Tensor:
        part: Tensor = self.content[i]
        return part

    def store(self) -> None:
        if isinstance(self.content, OnDemand):
            # Those of a leaf, or of another tensor, may be the tensors that somebody else holds.
            self.content = [torch.empty_like(self.like, device=part.device).copy_(part) for part in self.content]


class OnDemand(Sequence[Tensor]):
    """The k residues of a large tensor, or of a view of one; each access computes the same ones, up to writes.

    ``like`` is a meta tensor of their shape and strides. Those of a leaf and what is computed from it are read-only.
    """

    def __init__(self, source: Made | Memory, like: Tensor | None = None, steps: tuple[Map, ...] = ()) -> None:
        self.like = source.like if like is None else like
        self._source, self._steps = source, steps

    def __len__(self) -> int:
        return self._source.k

    def __getitem__(self, i: Any) -> Any:
        return self._through(self._source.make(range(len(self))[i]))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def _through(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = step(x)
        return x

    def view(self, function: Map) -> OnDemand:
        """Return those of a view, which ``function`` makes."""
        return OnDemand(self._source, function(self.like), (*self._steps, function))

    def numbered(self, root: Callable[[Sequence[int], Root], Tensor]) -> Tensor:
        """Return what becomes of numbers in place of the leaves' elements; for those that never change."""
        assert isinstance(self._source, Made)
        return self._through(self._source.numbered(root))

    # Writing.

    @property
    def is_writable(self) -> bool:
        return isinstance(self._source, Memory)

    def shares_memory(self, other: Sequence[Tensor]) -> bool:
        """Return True if a write to either changes the other."""
        if isinstance(other, OnDemand):
            return self.is_writable and other._source is self._source
        if isinstance(self._source, Made) or isinstance(self._source.content, OnDemand):
            return False
        return _memory_of(self._source.content) == _memory_of(other)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDemand:
        """Return a copy; copies of views of one memory are views of one memory, too."""
        source = self._source
        if isinstance(source, Made):
            return self
        if id(source) not in memo:
            on_demand = isinstance(source.content, OnDemand)
            content = source.content if on_demand else [part.clone() for part in source.content]
            memo[id(source)] = Memory(source.like, source.k, content)
        return OnDemand(memo[id(source)], self.like, self._steps)

    def constant(self) -> OnDemand:
        """Return the same residues as they are now: later writes do not change them."""
        source = self._source
        if isinstance(source, Made):
            return self
        if isinstance(source.content, OnDemand):
            out = source.content
            for step in self._steps:
                out = out.view(step)
            return out
        parts = [self._through(part).clone() for part in source.content]
        like = torch.empty_like(parts[0], device="meta")
        return OnDemand(Made(like, len(parts), lambda i: parts[i].clone(), computed=True))

    def write(self, source: Sequence[Tensor]) -> None:
        """Copy residues, which broadcast, into this tensor, which is writable."""
        memory = self._source
        assert isinstance(memory, Memory)
        whole = _layout(self.like) == _layout(memory.like)
        if whole and isinstance(source, OnDemand) and source.like.shape == self.like.shape:
            memory.content = source.constant().laid_out_like(memory.like)
            return
        if whole:  # nothing is left of the old elements
            memory.content = [torch.empty_like(memory.like, device=part.device).copy_(part) for part in source]
            return
        memory.store()
        for to, part in zip(self, source):
            to.copy_(part)

    # Rearranging.

    def laid_out_like(self, value: Tensor) -> OnDemand:
        """Return the same residues with the strides of ``value``."""
        if self.like.stride() == value.stride():
            return self
        return rearranged((self,), lambda part: laid_out_like(value, part), value)

    @property
    def is_leaf(self) -> bool:
        """True for those of a leaf or a view of one, which neither change nor are made of others."""
        source = self._source
        return isinstance(source, Made) and not source.computed and source.rearrange is None

    @property
    def matrix(self) -> tuple[Matrix | Arrangement, bool] | None:
        """The random matrix, or rows of random matrices, that this is, or is the transpose of (True).

        They are drawn as far as they are looked at.
        """
        here = self.constant() if isinstance(self._source, Memory) else self
        source, like = here._source, here.like
        if not isinstance(source, Made) or source.computed or like.ndim != 2:
            return None
        flipped = like.stride(0) < like.stride(1)
        upright = here.view(torch.t) if flipped else here
        key = _layout(upright.like)
        found: Matrix | Arrangement | None
        if source.rearrange is None:
            found = source.matrix if key == _layout(source.like) else None
        else:
            if key not in source.arrangements:
                source.arrangements[key] = find_arrangement(upright.numbered)
            found = source.arrangements[key]
        return None if found is None else (found, flipped)

    @property
    def identity(self) -> Hashable:
        """Return a key that is equal for equal views of one leaf."""
        return self._source, *_layout(self.like)


def rearranged(operands: Sequence[Sequence[Tensor]], function: Map, value: Tensor) -> OnDemand:
    """Return the residues that ``function`` selects and rearranges from others, with the strides of ``value``.

    One of the operands is on demand at least.
    """
    fixed = tuple(x.constant() if isinstance(x, OnDemand) else tuple(part.clone() for part in x) for x in operands)
    like = torch.empty_strided(value.shape, value.stride(), dtype=torch.float64, device="meta")

    def rearrange(*parts: Tensor) -> Tensor:
        return laid_out_like(like, function(*parts))

    made = Made(like, len(fixed[0]), lambda i: rearrange(*(x[i] for x in fixed)), operands=fixed, rearrange=rearrange)
    return OnDemand(made)


def in_memory(parts: OnDemand) -> OnDemand:
    """Return the residues of a new tensor, to which a program may write."""
    own = parts.constant()
    like = torch.empty_strided(own.like.shape, own.like.stride(), dtype=own.like.dtype, device="meta")
    return OnDemand(Memory(like, len(own), own))


def _memory_of(parts: Sequence[Tensor]) -> int:
    return parts[0].untyped_storage().data_ptr()


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.storage_offset()
