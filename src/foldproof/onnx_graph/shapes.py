"""Operators that make, select and rearrange elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, dtype_of, whole_numbers

_FAR = 2**31 - 1
"""Ends of slices beyond it are the end of the dimension."""


@defines("ConstantOfShape")
def constant_of_shape(shape: Numbers, *, value: Tensor | None = None) -> Tensor:
    sizes = whole_numbers(shape)
    return torch.zeros(sizes) if value is None else value.reshape(()).expand(sizes).clone()


@defines("Range")
def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    # The number of elements is no number that rounding may move, as one of torch.arange would be.
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return start + delta * torch.arange(count, dtype=start.dtype)


@defines("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    ones = torch.ones_like(x, dtype=x.dtype if dtype is None else dtype_of(dtype))
    return ones.tril(k).triu(k)


@defines("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@defines("Size")
def size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@defines("Reshape")
def reshape(x: Tensor, sizes: Numbers, *, allowzero: int = 0) -> Tensor:
    wanted = whole_numbers(sizes)
    return torch.reshape(x, [x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(wanted)])


@defines("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    at = axis + x.dim() if axis < 0 else axis
    rows = 1
    for n in x.shape[:at]:
        rows *= n
    return x.reshape(rows, x.numel() // rows if rows else 0)


@defines("Squeeze")
def squeeze(x: Tensor, axes: Numbers | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(whole_numbers(axes))


@defines("Unsqueeze")
def unsqueeze(x: Tensor, axes: Numbers) -> Tensor:
    given = whole_numbers(axes)
    for axis in sorted(a % (x.dim() + len(given)) for a in given):
        x = x.unsqueeze(axis)
    return x


@defines("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(list(perm) if perm is not None else [*reversed(range(x.dim()))])


@defines("Expand")
def expand(x: Tensor, sizes: Numbers) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, whole_numbers(sizes)))


@defines("Tile")
def tile(x: Tensor, repeats: Numbers) -> Tensor:
    return x.repeat(whole_numbers(repeats))


@defines("Concat")
def concat(*xs: Tensor, axis: int) -> Tensor:
    return torch.cat(xs, axis)


@defines("Split", several=True)
def split(
    x: Tensor, sizes: Numbers | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int
) -> tuple[Tensor, ...]:
    """Split into parts of these sizes, or equal ones, of which the last may be smaller."""
    if sizes is not None:
        return torch.split(x, whole_numbers(sizes), axis)
    count = num_outputs or outputs
    each = -(-x.shape[axis] // count)
    rest = x.shape[axis] - each * (count - 1)
    return torch.split(x, [each] * (count - 1) + [rest], axis)


@defines("SplitToSequence")
def split_to_sequence(x: Tensor, sizes: Numbers | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    """Split into a list of parts of these sizes; of one size, the last part may be smaller."""
    if sizes is None:
        return [part if keepdims else part.squeeze(axis) for part in torch.split(x, 1, axis)]
    wanted = whole_numbers(sizes)
    return list(torch.split(x, wanted[0] if len(wanted) == 1 else wanted, axis))


@defines("SequenceAt")
def sequence_at(parts: list[Tensor], place: Numbers) -> Tensor:
    return parts[whole_numbers(place)[0]]


@defines("ConcatFromSequence")
def concat_from_sequence(parts: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(parts, axis) if new_axis else torch.cat(parts, axis)


@defines("SequenceConstruct")
def sequence_construct(*parts: Tensor) -> list[Tensor]:
    return list(parts)


@defines("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> list[Tensor]:
    return []


@defines("SequenceInsert")
def sequence_insert(parts: list[Tensor], part: Tensor, place: Numbers | None = None) -> list[Tensor]:
    at = len(parts) if place is None else whole_numbers(place)[0]
    at += len(parts) * (at < 0)
    return [*parts[:at], part, *parts[at:]]


@defines("SequenceErase")
def sequence_erase(parts: list[Tensor], place: Numbers | None = None) -> list[Tensor]:
    at = (-1 if place is None else whole_numbers(place)[0]) % len(parts)
    return [*parts[:at], *parts[at + 1 :]]


@defines("SequenceLength")
def sequence_length(parts: list[Tensor]) -> Tensor:
    return torch.tensor(len(parts))


@defines("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Numbers, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Reverse the first elements of each sequence, as many as its length says."""
    time = time_axis - (time_axis > batch_axis)
    rows = []
    for row, n in zip(x.unbind(batch_axis), whole_numbers(lengths)):
        first, rest = row.narrow(time, 0, n), row.narrow(time, n, row.shape[time] - n)
        rows.append(torch.cat([first.flip(time), rest], time))
    return torch.stack(rows, batch_axis)


@defines("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    places = condition.nonzero().flatten()
    return x.flatten()[places] if axis is None else x.index_select(axis, places)


@defines("Slice")
def cut(x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers | None = None, steps: Numbers | None = None) -> Tensor:
    first, last = whole_numbers(starts), whole_numbers(ends)
    along = whole_numbers(axes) if axes is not None else [*range(len(first))]
    by = whole_numbers(steps) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by):
        n = x.shape[axis]
        if step < 0 and (start < -n or end >= n):
            raise NotTranslated("Slice that goes backwards from or to a place outside has no definition")
        start, end, step = slice(start, end, step).indices(n)
        if step > 0:
            at = slice(start, max(start, end), step)
            x = x[(slice(None),) * (axis % x.dim()) + (at,)]
        else:
            x = x.index_select(axis, torch.arange(start, end, step, device=x.device))
    return x


@defines("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.dim()
    at = torch.where(indices < 0, indices + x.shape[axis], indices)
    taken = x.index_select(axis, at.reshape(-1))
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@defines("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    at = torch.where(indices < 0, indices + x.shape[axis], indices)
    return x.gather(axis, at.long())


@defines("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    at = [indices[..., i] for i in range(indices.shape[-1])]
    if batch_dims:
        batch = [
            torch.arange(n, device=x.device).reshape([-1 if d == i else 1 for d in range(indices.dim() - 1)])
            for i, n in enumerate(x.shape[:batch_dims])
        ]
        at = [*batch, *at]
    return x[tuple(at)]


@defines("ScatterElements")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    at = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    if reduction == "none":
        return x.scatter(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _REDUCTIONS[reduction])


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@defines("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    if reduction not in ("none", "add"):
        raise NotTranslated(f"ScatterND with the reduction {reduction} has no definition")
    at = tuple(indices[..., i] for i in range(indices.shape[-1]))
    return x.index_put(at, updates, accumulate=reduction == "add")


@defines("NonZero")
def nonzero(x: Tensor) -> Tensor:
    return x.nonzero().t()


@defines("OneHot")
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(depth.reshape(()).item())
    at = torch.where(indices < 0, indices + count, indices)
    axis %= indices.dim() + 1
    places = torch.arange(count, device=indices.device).reshape(
        [-1 if d == axis else 1 for d in range(indices.dim() + 1)]
    )
    return torch.where(at.unsqueeze(axis) == places, values[1], values[0])


@defines("Trilu")
def trilu(x: Tensor, k: Numbers | None = None, *, upper: int = 1) -> Tensor:
    by = 0 if k is None else whole_numbers(k)[0]
    return x.triu(by) if upper else x.tril(by)


@defines("Pad")
def pad(
    x: Tensor,
    pads: Numbers,
    value: Tensor | None = None,
    axes: Numbers | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Pad in front of and behind each dimension; negative numbers cut off."""
    given = whole_numbers(pads)
    along = [a % x.dim() for a in whole_numbers(axes)] if axes is not None else [*range(x.dim())]
    around = {axis: (given[i], given[i + len(along)]) for i, axis in enumerate(along)}
    if mode == "constant":
        number = 0.0 if value is None else value.reshape(()).item()
        return functional.pad(
            x, [n for axis in reversed(range(x.dim())) for n in around.get(axis, (0, 0))], value=number
        )
    if any(n < 0 for pair in around.values() for n in pair):
        raise NotTranslated(f"Pad of the mode {mode} that cuts off elements has no definition")
    for axis, (front, behind) in around.items():
        x = x.index_select(axis, _places(x.shape[axis], front, behind, mode).to(x.device))
    return x


def _places(n: int, front: int, behind: int, mode: str) -> Tensor:
    """Return the places of the elements of a padded dimension."""
    at = torch.arange(-front, n + behind)
    if mode == "edge":
        return at.clamp(0, n - 1)
    if mode == "wrap":
        return at % n
    if mode == "reflect":
        at = at.abs() % max(2 * (n - 1), 1)
        return torch.where(at < n, at, 2 * (n - 1) - at)
    raise NotTranslated(f"padding of the mode {mode} has no definition")


@defines("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


@defines("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
