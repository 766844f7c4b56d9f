"""Containers of Python that a program may fill: their contents, copies of them, and putting contents back."""

from __future__ import annotations

import copy
import itertools
import operator
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from types import GeneratorType
from typing import Any

import torch

_KINDS: tuple[Any, ...] = (list, dict, set, deque)
_PLAIN = (bool, int, float, complex, str, bytes, frozenset, torch.Size, torch.dtype, torch.device)


def _kind(x: Any) -> Any:
    """Return the kind of container that ``x`` is (a Counter is a dict); None for anything else."""
    return next((kind for kind in _KINDS if isinstance(x, kind)), None) if isinstance(x, _KINDS) else None


def items(x: Any) -> Iterable[Any]:
    """Return the contents of a container or tuple; none of anything else."""
    if type(x) is tuple:
        return x
    kind = _kind(x)
    if kind is None:
        return ()
    return list(dict.values(x)) if kind is dict else list(kind.__iter__(x))


def is_container(x: Any) -> bool:
    """Return True for lists, dicts, sets, deques and tuples."""
    return type(x) is tuple or isinstance(x, _KINDS)


def flat(x: Any) -> Iterator[Any]:
    """Yield the contents of containers, however deep; anything else itself."""
    if not is_container(x):
        yield x
        return
    seen, pending = set[int](), [x]
    while pending:
        y = pending.pop()
        if not is_container(y):
            yield y
        elif id(y) not in seen:  # containers may contain themselves
            seen.add(id(y))
            pending.extend(reversed(list(items(y))))


def is_memory(x: Any) -> bool:
    """Return True for an array of NumPy or of bytes, which a program may write to like a tensor."""
    numpy = sys.modules.get("numpy")
    return isinstance(x, bytearray) or (
        numpy is not None and isinstance(x, numpy.ndarray) and x.dtype.hasobject is False
    )


def position(x: Any) -> Any:
    """Return a value that changes when an iterator moves, if Python shows one; None for anything else."""
    if isinstance(x, GeneratorType):
        frame = x.gi_frame
        return "ended" if frame is None else (frame.f_lasti, {name: id(y) for name, y in frame.f_locals.items()})
    if isinstance(x, itertools.count):
        return repr(x)
    if type(x).__module__ == "builtins" and hasattr(type(x), "__next__") and hasattr(type(x), "__length_hint__"):
        return operator.length_hint(x)
    return None


class Contents:
    """The contents of some containers and arrays as they are now, to tell the changed ones and to put all back."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._held: dict[int, tuple[Any, Any]] = {}
        self._collect(values)

    def _collect(self, values: Iterable[Any]) -> None:
        for x in values:
            if type(x) is tuple:
                self._collect(x)
            elif id(x) in self._held:
                continue
            elif is_memory(x):
                self._held[id(x)] = x, x.copy()
            elif (kind := _kind(x)) is not None:
                self._held[id(x)] = x, kind(dict.items(x) if kind is dict else kind.__iter__(x))
                self._collect(items(x))

    def changed(self) -> dict[int, tuple[Any, Any]]:
        """Return the changed containers with their former contents, by id."""
        return {at: pair for at, pair in self._held.items() if not _same_contents(*pair)}

    def __contains__(self, at: int) -> bool:
        return at in self._held


def refill(x: Any, content: Any) -> None:
    """Give a container or array these contents, without a method that its owner defined."""
    kind = _kind(x)
    if kind is None:
        x[:] = content
        return
    kind.clear(x)
    (kind.update if kind in (dict, set) else kind.extend)(x, content)


def reaches(x: Any, ids: Collection[int]) -> bool:
    """Return True if ``x`` is one of the objects with these ``ids``, or contains one."""
    if id(x) in ids:
        return True
    seen, pending = set[int](), [x]
    while pending:
        y = pending.pop()
        if id(y) in ids:
            return True
        if is_container(y) and id(y) not in seen:
            seen.add(id(y))
            pending.extend(items(y))
    return False


def copied_contents(x: Any, made: dict[int, Any], tensors: Collection[int] = ()) -> Any:
    """Return a copy of containers in containers, and of ``tensors``; ``made`` keeps shared ones shared."""
    if id(x) in made:
        return made[id(x)]
    if id(x) in tensors:
        made[id(x)] = x.detach().clone()  # as the current modes see it: one may have written to a copy of its own
        return made[id(x)]
    if type(x) is tuple:
        return tuple(copied_contents(v, made, tensors) for v in x)
    if is_memory(x):
        made[id(x)] = x.copy()
        return made[id(x)]
    kind = _kind(x)
    if kind is None:
        return x
    made[id(x)] = new = copy.copy(x)
    if kind is dict:
        dict.update(new, {k: copied_contents(v, made, tensors) for k, v in dict.items(x)})
    elif kind is not set:
        refill(new, [copied_contents(v, made, tensors) for v in items(x)])
    return new


def same(a: Any, b: Any) -> bool:
    """Return True for the same object, or equal plain values of one type."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    return bool(a == b) if isinstance(a, _PLAIN) else type(a) is tuple and len(a) == len(b) and all(map(same, a, b))


def alike(a: Any, b: Any) -> bool:
    """Return True for equal containers, too, other than themselves."""
    if type(a) is not type(b) or a is b or not is_container(a):
        return same(a, b)
    keys = not isinstance(a, dict) or list(dict.keys(a)) == list(dict.keys(b))
    return keys and len(a) == len(b) and all(map(alike, items(a), items(b)))


def _same_contents(x: Any, content: Any) -> bool:
    kind = _kind(x)
    if kind is None:
        return bool(x == content) if isinstance(x, bytearray) else x.tobytes() == content.tobytes()
    if kind is set:
        return bool(set.__eq__(x, content))
    if not (x or content):
        return True
    keys = kind is not dict or list(dict.keys(x)) == list(content)
    return keys and len(x) == len(content) and all(map(same, items(x), items(content)))
