"""The largest of several values, as a function of them in any order.

A maximum over a dimension, max pooling, and a chain of maxima over shifted copies compute the same. Where choices by
value are read as functions (`Choices`), each is therefore one uninterpreted function of the *set* of values that it
chooses from, with their numbers: of the sum of an uninterpreted function of each value.

Soundness
---------
The largest value is a function of these sets. Over the real numbers there is a function whose sums tell sets apart (a
one-to-one map from the reals to numbers that are linearly independent over the rationals), so that this reading is
the meaning of the operator for one interpretation of the two functions. Programs that are equal for all interpretations
are equal for that one.

-inf is no member of a set, because it changes no maximum: padding and masks hold it. The largest of one value is the
value itself. A set without members, one with an infinite result, and one with an overflow have no such reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.leaves import overflows
from foldproof.shadow.residue import Map, Residue, apply_uninterpreted
from foldproof.shadow.windows import contract, find_windows, sum_of_windows


class Sets(NamedTuple):
    """The sets that an operator chooses from: the linear function that adds up their members, and their size."""

    add_up: Map
    members: int
    smallest: bool = False


def read_extreme(call: Call) -> Residue | None:
    """Return the extreme values of a call of an operator in `SETS`; None if they are infinite or nan, or no values."""
    find = SETS.get(str(call.operator))
    if find is None or not call.first_result.is_floating_point():
        return None
    x = next(iter(call.arguments.values()))
    return _read(call.residue(x), call.value(x), find(call), call.first_result)


def read_largest(x: Residue, value: Tensor, dims: Sequence[int]) -> Residue | None:
    """Return the largest values along ``dims``, which are kept; None as in `read_extreme`."""
    return _read(x, value, _along(dims, True, False)(value), value.amax(tuple(dims), True))


def read_extreme_of_two(x: Residue, y: Residue, values: Sequence[Tensor], smallest: bool) -> Residue | None:
    """Return the extreme of two values, which broadcast, for each element; None as in `read_extreme`."""
    first, second = torch.broadcast_tensors(*values)
    extreme = torch.minimum if smallest else torch.maximum
    both = x.map(lambda p, q: torch.stack(torch.broadcast_tensors(p, q), -1), y)
    sets = Sets(lambda part: part.sum(-1), 2, smallest)
    return _read(both, torch.stack([first, second], -1), sets, extreme(first, second))


def _read(x: Residue, value: Tensor, sets: Sets, result: Tensor) -> Residue | None:
    """Return the extremes of the sets of elements of x, where ``value`` and ``result`` are the values."""
    if not bool(result.isfinite().all()):
        return None
    present = value != (math.inf if sets.smallest else -math.inf)
    if overflows(value, x):
        return None  # other inputs may not have that
    numbers = sets.add_up(present.to(torch.float64))
    if bool((numbers < 1).any()):
        return None  # padding alone
    x = -x if sets.smallest else x

    def add_up(members: Residue) -> Residue:
        kept = members if bool(present.all()) else members.map(lambda part: torch.where(present, part, 0.0))
        return kept.total(sets.add_up, sets.members)

    real = -result if sets.smallest else result
    total = add_up(apply_uninterpreted("member", [x], lambda t: t))
    out = apply_uninterpreted("largest", [total], lambda _: real.detach().double())
    if bool((numbers == 1).any()):
        out = out.map(lambda part, own: torch.where(numbers == 1, own, part), add_up(x))
    out.defined_if(not x.undefined)
    return -out if sets.smallest else out


def _along(dims: Sequence[int] | None, keepdim: bool, smallest: bool) -> Callable[[Tensor], Sets]:
    def find(x: Tensor) -> Sets:
        axes = sorted({d % max(x.ndim, 1) for d in dims}) if dims else list(range(x.ndim))
        if not x.ndim:
            return Sets(lambda part: part.clone(), 1, smallest)
        return Sets(lambda part: part.sum(axes, keepdim), math.prod(x.shape[d] for d in axes), smallest)

    return find


def _reduced(smallest: bool) -> Callable[[Call], Sets]:
    def find(call: Call) -> Sets:
        given = call.arguments
        dim = given.get("dim")
        dims = [dim] if isinstance(dim, int) else dim
        return _along(dims, bool(given.get("keepdim", False)), smallest)(next(iter(given.values())))

    return find


def _pooled(call: Call) -> Sets:
    x, size, *_ = call.arguments.values()
    dims = 3 if "3d" in str(call.operator) else max(len(size), 2)
    add_up = sum_of_windows(x, call.arguments, call.first_result.shape[-dims:])
    return Sets(add_up, math.prod(size) if len(size) > 1 else size[0] ** dims)


def _pooled_adaptively(call: Call) -> Sets:
    x, out = list(call.arguments.values())[:2]
    windows = [find_windows(s, o, x.device) for s, o in zip(x.shape[-len(out) :], out)]
    return Sets(lambda part: contract(part, windows), max(x.shape[-len(out) :].numel(), 1))


SETS: Mapping[str, Callable[[Call], Sets]] = {
    "aten.amax.default": _reduced(False),
    "aten.amin.default": _reduced(True),
    "aten.max.default": _reduced(False),
    "aten.max.dim": _reduced(False),
    "aten.min.default": _reduced(True),
    "aten.min.dim": _reduced(True),
    "aten.adaptive_max_pool2d.default": _pooled_adaptively,
    "aten.adaptive_max_pool3d.default": _pooled_adaptively,
    "aten.max_pool2d_with_indices.default": _pooled,
    "aten.max_pool3d_with_indices.default": _pooled,
    "prims._low_memory_max_pool_with_offsets.default": _pooled,
}
"""The sets of each operator, by its name: that of Inductor is known only once Inductor is imported."""
