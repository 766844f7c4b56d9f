"""The record of a conversion on ordinary tensors: which entries of a checkpoint each new tensor was computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import bind_arguments, list_written
from foldproof.program.state import storage_key
from foldproof.rounding.answers import is_exact
from foldproof.torch_internals import DispatchMode, tree_iter


@dataclass(frozen=True)
class Origin:
    """The entries of a checkpoint that a tensor was computed from, if any, and the operators that did it, in order."""

    entries: tuple[str, ...]
    steps: tuple[str, ...] = ()
    exact: bool = True
    """True if none of them rounds anything."""
    movement: str = ""
    """The steps in words, if they move an entry's elements in a way that has a name."""

    def __str__(self) -> str:
        how = self.movement or (f"by {', '.join(self.steps)}" if self.steps else "")
        return f"{', '.join(self.entries) or 'constants'} {how}".strip()


def name_movement(made: Tensor, entry: Tensor) -> str:
    """Return the words for ``made`` as a movement of an entry's elements; empty if there are none."""
    if made.dtype != entry.dtype or made.ndim != entry.ndim or not 0 < entry.numel() <= _MAX_MOVED:
        return ""
    if made.ndim == 2 and made.shape == entry.T.shape and torch.equal(made, entry.T):
        return "transposed"
    if made.shape[1:] != entry.shape[1:] or made.ndim == 0:
        return ""
    places = {tuple(row.flatten().tolist()): i for i, row in enumerate(entry.unsqueeze(-1))}
    found = [places.get(tuple(row.flatten().tolist())) for row in made.unsqueeze(-1)]
    if len(places) < len(entry) or None in found or found == [*range(len(entry))]:
        return ""
    if sorted(i for i in found if i is not None) == [*range(len(entry))]:
        return "with its rows in another order"
    first = found[0] or 0
    return f"from row {first} to {first + len(found) - 1}" if found == [*range(first, first + len(found))] else ""


_MAX_MOVED = 1 << 20
"""Largest number of elements that are looked for one by one."""


class Trace(DispatchMode):
    """While active, follow the entries of a checkpoint through every operator.

    Views of one memory are followed one by one while they are read, and as a whole once they are written to.
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        super().__init__()
        self._kept: list[Tensor] = []  # ids stay theirs
        self._of: dict[int, Origin] = {}
        self._in_memory: dict[int, Origin] = {}
        self._written: set[int] = set()
        for name, x in entries.items():
            if isinstance(x, Tensor):
                self._note(x, Origin((name,)))

    def _note(self, x: Tensor, origin: Origin) -> None:
        self._kept.append(x)
        self._of[id(x)] = origin
        self._in_memory.setdefault(storage_key(x), origin)

    def origin(self, x: Tensor) -> Origin | None:
        """Return the origin of a tensor; None if it was neither computed from an entry nor written to."""
        memory = storage_key(x)
        as_a_whole = self._in_memory.get(memory)
        return as_a_whole if memory in self._written else self._of.get(id(x), as_a_whole)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = [(x, o) for x in tree_iter((args, kwargs)) if isinstance(x, Tensor) and (o := self.origin(x))]
        written = [bind_arguments(func, args, kwargs or {})[i] for i in list_written(func)]
        if not known and not written:
            return out
        name, read = func.overloadpacket.__name__, [origin for _, origin in known]
        results = [x for x in tree_iter(written or out) if isinstance(x, Tensor)]
        keeps = not known or _coarsest(results) <= _coarsest(x for x, _ in known)
        origin = Origin(
            tuple(dict.fromkeys(entry for o in read for entry in o.entries)),
            (*max((o.steps for o in read), key=len, default=()), *(() if name in _COPIES else (name,))),
            exact=keeps and (name in _COPIES or is_exact(func)) and all(o.exact for o in read),
        )
        for target in (x for x in tree_iter(written) if isinstance(x, Tensor)):
            self._kept.append(target)
            self._written.add(storage_key(target))
            self._in_memory[storage_key(target)] = origin
        if not written:
            for x in tree_iter(out):
                if isinstance(x, Tensor):
                    self._note(x, origin)
        return out


def _coarsest(tensors: Iterable[Tensor]) -> float:
    """Return the largest unit roundoff among real numbers."""
    return max((torch.finfo(x.dtype).eps for x in tensors if x.is_floating_point()), default=0.0)


_COPIES = {"detach", "alias", "clone", "copy_", "_to_copy", "lift_fresh", "contiguous"}
"""Operators whose result is their operand."""
