"""Buffers as values: the memory of each is a flat tensor, replaced by a new one at every write.

Reading and writing at strides is rearranging by views of the flat tensor; anything else takes and puts elements by an
index. Memory that was never written, or lies outside of a buffer, holds an arbitrary number, another one for each
buffer: programs that depend on it are not equal to programs that do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value, convert, expand, permute, reshape

aten = torch.ops.aten


@dataclass(frozen=True)
class Place:
    """Elements of a flat memory: ``offset`` + Σ ``strides``[k]·i[k] for all i below ``sizes``."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and largest address; (0, -1) if there is none."""
        if 0 in self.sizes:
            return 0, -1
        reach = [(n - 1) * step for n, step in zip(self.sizes, self.strides)]
        return self.offset + sum(r for r in reach if r < 0), self.offset + sum(r for r in reach if r > 0)

    def moved(self, by: int) -> Place:
        return Place(self.sizes, self.strides, self.offset + by)


@dataclass
class _Home:
    """One piece of memory: its number of elements, dtype and present contents; None if nothing was written."""

    name: str
    size: int
    dtype: torch.dtype
    contents: Value | None = None


class Memory:
    """Buffers by name. Several names may stand for parts of one home."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._homes: dict[str, _Home] = {}
        self._aliases: dict[str, tuple[str, int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._aliases or name in self._homes

    def declare(self, name: str, size: int, dtype: torch.dtype) -> None:
        """Add a buffer without contents."""
        self._homes[name] = _Home(name, size, dtype)

    def alias(self, name: str, home: str, offset: int) -> None:
        """Let a name stand for the memory of another buffer, from ``offset`` on."""
        self._aliases[name] = home, offset

    def find(self, name: str) -> tuple[_Home, int]:
        """Return the memory behind a name, and the place where it begins there."""
        offset = 0
        while name in self._aliases:
            name, more = self._aliases[name]
            offset += more
        if name not in self._homes:
            raise Unreadable(f"the buffer {name} is not known")
        return self._homes[name], offset

    def contents(self, home: _Home) -> Value:
        """Return the flat contents of a home."""
        if home.contents is None:
            home.contents = expand(self._recorder, self._arbitrary(home), [home.size])
        return home.contents

    def _arbitrary(self, home: _Home) -> Value:
        seed = int(hashlib.sha256(home.name.encode()).hexdigest()[:4], 16)
        inexact = home.dtype.is_floating_point or home.dtype.is_complex
        number: Any = 1.375 + seed / 2**17 if inexact else 27 + seed % 97
        number = True if home.dtype == torch.bool else number
        return self._recorder.call(aten.full.default, [], number, dtype=home.dtype)

    def read(self, name: str, place: Place) -> Value:
        """Return the elements at a place; dimensions without a stride have size 1.

        Raises:
            Unreadable: the place is outside of the buffer.
        """
        home, offset = self.find(name)
        self._require_known(home)
        place = place.moved(offset)
        low, high = place.bounds
        if low < 0 or high >= home.size:
            raise Unreadable(f"{name} is read outside of its memory")
        return read_place(self._recorder, self.contents(home), place)

    def _require_known(self, home: _Home) -> None:
        """Refuse to read truth values that were never written: an arbitrary one may be right by chance."""
        if home.contents is None and home.dtype == torch.bool and home.size:
            raise Unreadable(f"{home.name} holds truth values that were not written, or are not kept, and is read")

    def fits(self, name: str, place: Place) -> bool:
        """True if the place is inside of the buffer's memory."""
        home, offset = self.find(name)
        low, high = place.moved(offset).bounds
        return low >= 0 and high < home.size

    def gather(self, name: str, index: Value, mask: Value | None, checked: bool = True) -> Value:
        """Return the elements at an index; those that the mask leaves out are not read, and have any value.

        An index that is not ``checked`` by the program is promised to be inside: the program has no meaning elsewhere,
        and the recorded one fails there.
        """
        home, offset = self.find(name)
        self._require_known(home)
        call = self._recorder.call
        index = _moved(self._recorder, index, offset)
        if mask is not None:
            index = call(aten.where.ScalarOther, mask, index, 0)
        if index.known and _is_inside(index.example, home.size):
            return call(aten.index.Tensor, self.contents(home), [index])
        if not home.size:
            return expand(self._recorder, self._arbitrary(home), list(index.example.shape))
        if not checked:
            index = call(aten.where.ScalarOther, call(aten.ge.Scalar, index, 0), index, home.size)
            return call(aten.index.Tensor, self.contents(home), [index])
        inside = call(aten.logical_and.default, call(aten.ge.Scalar, index, 0), call(aten.lt.Scalar, index, home.size))
        taken = call(aten.index.Tensor, self.contents(home), [call(aten.where.ScalarOther, inside, index, 0)])
        return call(aten.where.self, inside, taken, self._arbitrary(home))

    def write(self, name: str, place: Place, value: Value) -> None:
        """Write a value of the place's sizes."""
        home, offset = self.find(name)
        place = place.moved(offset)
        low, high = place.bounds
        if high < low:
            return
        if low < 0 or high >= home.size:
            self._spoil(home)
            return
        value = convert(self._recorder, value, home.dtype)
        dense = find_dense(place)
        if dense is None:
            if _overlaps(place):
                raise Unreadable(f"an element of {name} is written more than once in one loop")
            index = expand(self._recorder, make_index(self._recorder, place), place.sizes)
            index = self._recorder.call(aten.reshape.default, index, [-1])
            flat = self._recorder.call(aten.reshape.default, value, [-1])
            home.contents = self._recorder.call(aten.index_put.default, self.contents(home), [index], flat)
            return
        flat = reshape(self._recorder, permute(self._recorder, value, dense), [high - low + 1])
        if high - low + 1 < home.size:
            flat = self._recorder.call(aten.slice_scatter.default, self.contents(home), flat, 0, low, high + 1)
        home.contents = flat

    def scatter(self, name: str, index: Value, value: Value, accumulate: bool) -> None:
        """Write, or add, a value at an index of the same shape."""
        home, offset = self.find(name)
        call = self._recorder.call
        index = call(aten.reshape.default, _moved(self._recorder, index, offset), [-1])
        if index.known and not _is_inside(index.example, home.size):
            self._spoil(home)
            return
        flat = call(aten.reshape.default, convert(self._recorder, value, home.dtype), [-1])
        if not index.known:  # a negative index would be counted from the end; one past the end raises
            index = call(aten.where.ScalarOther, call(aten.ge.Scalar, index, 0), index, home.size)
        home.contents = call(aten.index_put.default, self.contents(home), [index], flat, accumulate)

    def _spoil(self, home: _Home) -> None:
        """Forget the contents: a write outside of memory may have changed anything."""
        home.contents = None

    def release(self, name: str) -> None:
        """Forget the contents of a buffer whose memory may now be used for another one."""
        if name in self._homes:  # a part of another buffer is released with it
            self._spoil(self._homes[name])


def _moved(recorder: Recorder, index: Value, offset: int) -> Value:
    return recorder.call(aten.add.Tensor, index, offset) if offset else index


def _is_inside(index: Tensor, size: int) -> bool:
    return not index.numel() or (int(index.min()) >= 0 and int(index.max()) < size)


def find_dense(place: Place) -> list[int] | None:
    """Return the order of dimensions in which the place is one run of memory; None if it is none."""
    order = sorted(range(len(place.sizes)), key=lambda k: (-place.strides[k], -place.sizes[k]))
    step = 1
    for k in reversed(order):
        if place.sizes[k] != 1:
            if place.strides[k] != step:
                return None
            step *= place.sizes[k]
    return order


def _overlaps(place: Place) -> bool:
    """True if two indices may be one address."""
    reach = 0
    for step, n in sorted((abs(s), n) for s, n in zip(place.strides, place.sizes) if n > 1):
        if step <= reach:
            return True
        reach += step * (n - 1)
    return False


def make_index(recorder: Recorder, place: Place) -> Value:
    """Return the addresses of a place, as integers of its sizes."""
    rank = len(place.sizes)
    index = recorder.call(aten.full.default, [1] * rank, place.offset, dtype=torch.int64)
    for k, (n, step) in enumerate(zip(place.sizes, place.strides)):
        if n != 1 and step:
            variable = make_variable(recorder, n, k, rank)
            index = recorder.call(aten.add.Tensor, index, recorder.call(aten.mul.Tensor, variable, step))
    return index


def make_variable(recorder: Recorder, size: int, axis: int, rank: int, text: str = "") -> Value:
    """Return 0, 1, … below ``size`` along one axis of several."""
    count = recorder.call(aten.arange.default, size, dtype=torch.int64)
    made = reshape(recorder, count, [size if k == axis else 1 for k in range(rank)])
    return Value(made.node, made.example, text)


def read_place(recorder: Recorder, flat: Value, place: Place) -> Value:
    """Return the elements of a flat tensor at a place inside of it; dimensions without a stride have size 1."""
    call = recorder.call
    if 0 in place.sizes:
        return call(aten.full.default, list(place.sizes), 0, dtype=flat.example.dtype)
    moving = [k for k, (n, step) in enumerate(zip(place.sizes, place.strides)) if n != 1 and step]
    moving.sort(key=lambda k: -place.strides[k])
    view = _find_view(flat.example.numel(), [(place.sizes[k], place.strides[k]) for k in moving], place.offset)
    if view is None:
        return call(aten.index.Tensor, flat, [make_index(recorder, place)])
    shape, starts = view
    value = reshape(recorder, flat, shape)
    for axis, (start, n) in enumerate(zip(starts, [*(place.sizes[k] for k in moving), 1])):
        if n != shape[axis]:
            value = call(aten.slice.Tensor, value, axis, start, start + n)
    order = sorted(range(len(moving)), key=lambda i: moving[i])
    value = permute(recorder, value, [*order, len(moving)])
    return reshape(recorder, value, [n if k in moving else 1 for k, n in enumerate(place.sizes)])


def _find_view(size: int, moving: Sequence[tuple[int, int]], offset: int) -> tuple[list[int], list[int]] | None:
    """Find a shape of a flat tensor of which the place is a box, and the box's first corner; None if there is none.

    ``moving`` holds the sizes and strides of the dimensions, by falling stride.
    """
    shape, starts, whole = [], [], size
    for n, step in moving:
        if step <= 0 or whole % step:
            return None
        digit, offset = divmod(offset, step)
        if digit + n > whole // step:
            return None
        shape.append(whole // step)
        starts.append(digit)
        whole = step
    return [*shape, whole], [*starts, offset]


def count_elements(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of elements from the first to the last address."""
    return 0 if 0 in sizes else 1 + sum((n - 1) * step for n, step in zip(sizes, strides))


def flatten(recorder: Recorder, value: Value, strides: Sequence[int], memory: Memory, name: str) -> None:
    """Make a tensor with these strides the contents of a buffer, and fill the gaps between its elements."""
    sizes = tuple(value.example.shape)
    distinct = value
    for k, (n, step) in enumerate(zip(sizes, strides)):
        if n > 1 and step == 0:
            distinct = recorder.call(aten.slice.Tensor, distinct, k, 0, 1)
    memory.write(name, Place(tuple(distinct.example.shape), tuple(strides)), distinct)
