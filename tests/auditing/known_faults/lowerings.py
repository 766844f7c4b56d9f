"""Known faults of lowerings."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._inductor import index_propagation, ir, lowering

from tests.auditing.known_faults.fault import KnownFault, given, lowered, normal, patched

aten = torch.ops.aten


def _whole_windows(original: Any) -> Any:
    def pool(x: Any, kernel: Any, *args: Any, **named: Any) -> Any:
        stride, padding, ceil_mode = ([*args, *[None] * 3])[:3]
        return original(x, kernel, stride or [], padding or 0, bool(ceil_mode), True, math.prod(kernel))

    return pool


def _ties_to_the_right(original: Any) -> Any:
    return lambda kind, dtype, arg_break_ties_left=True: original(kind, dtype, not arg_break_ties_left)


def _unwrapped(_: Any) -> Any:
    """Whole numbers that never overflow."""

    def convert(self: Any) -> None:
        if self.is_constant():
            self.expr = index_propagation.dtype_to_type(self.dtype)(self.expr)

    return convert


def _offset_forgotten(original: Any) -> Any:
    return lambda x, size, stride, storage_offset=None: original(x, size, stride, 0)


def _one_element_everywhere(original: Any) -> Any:
    def pad(x: Any, padding: Any, fill_value: Any = 0) -> Any:
        if all(n == 1 for n in x.get_size()):
            sizes = list(x.get_size())
            for i in range(len(padding) // 2):
                sizes[-1 - i] += padding[2 * i] + padding[2 * i + 1]
            return lowering.expand(x, sizes)
        return original(x, padding, fill_value)

    return pad


def _denominator_below_zero(original: Any) -> Any:
    """The variance, whose denominator may be negative."""

    def var(x: Any, axis: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
        number = math.prod(int(x.get_size()[i]) for i in axis)
        right = original(x, axis, correction=0, keepdim=keepdim)
        by = number - (1 if correction is None else correction)
        return lowering.lowerings[aten.mul.Tensor](right, number / by)

    return var


def _logical_index_forgotten(original: Any) -> Any:
    """The place in memory instead of the place in the tensor: the operand is taken with its strides in order."""

    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if axis is None and len(x.get_size()) == 2:
            x = lowering.lowerings[aten.permute.default](x, [1, 0])
        return original(x, axis, keepdims)

    return reduce


def _values_unrealized(original: Any) -> Any:
    return lambda x, indices, values, accumulate, check, may_realize=False: original(
        x, indices, values, accumulate, check, may_realize=False
    )


def _rows_doubled(i: Tensor, x: Tensor) -> Tensor:
    x[i] += x[i]
    return x


def _sines(x: Tensor) -> Tensor:
    x.sin_()
    return x.t().argmin()


def _any_rounding(original: Any) -> Any:
    def div(a: Any, b: Any, rounding_mode: Any = None) -> Any:
        return lowering.floordiv(a, b) if rounding_mode == "trunc" else original(a, b, rounding_mode)

    return div


def _dtype_of_first(original: Any) -> Any:
    """The comparison, in the dtype of its first operand."""
    return lambda x, other: original(x, int(other) if not x.get_dtype().is_floating_point else other)


def _promoted(original: Any) -> Any:
    return lambda x, *args: [lowering.to_dtype(original(x, *args)[0], torch.int64), original(x, *args)[1]]


FAULTS = {
    "windows over the edge": KnownFault(
        "`avg_pool2d` with ceil_mode divides by whole windows at the edge",
        100987,
        lowered(aten.avg_pool2d.default, _whole_windows),
        lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
        normal((1, 2, 6, 6)),
        "lowering",
    ),
    "a quotient rounded down": KnownFault(
        "a quotient of whole numbers that is to be rounded to zero is rounded down",
        88603,
        lowered(aten.div.Tensor_mode, _any_rounding),
        lambda x: torch.div(x, 4, rounding_mode="trunc"),
        given([[-7, 6, -5], [3, -2, 9]]),
        "lowering",
    ),
    "rows added to themselves": KnownFault(
        "`x[i] += x[i]` reads elements that it has written where an index occurs twice",
        138908,
        patched(lowering, "index_put_impl_", _values_unrealized),
        _rows_doubled,
        lambda: [torch.zeros(1, 2, dtype=torch.int64), normal((2, 4))()[0]],
    ),
    "ties of argmax": KnownFault(
        "`argmax` gives the last of equal elements",
        99879,
        patched(ir, "get_reduction_combine_fn", _ties_to_the_right),
        lambda x: x.argmax(1),
        given([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]),
        "lowering",
    ),
    "the place of a minimum, transposed": KnownFault(
        "`argmin` of a transposed tensor counts elements as they lie in memory",
        163929,
        lowered(aten.argmin.default, _logical_index_forgotten),
        _sines,
        normal((4, 6)),
        "lowering",
    ),
    "constants that overflow": KnownFault(
        "arithmetic of constants in whole numbers does not overflow while indices are propagated",
        161763,
        patched(index_propagation.TypedExpr, "__post_init__", _unwrapped),
        lambda x: (torch.full((3,), 200, dtype=torch.uint8) + 100) // 7 + x,
        given([1, 2, 3], dtype=torch.uint8),
        "lowering",
    ),
    "a place in memory": KnownFault(
        "`as_strided` forgets its offset",
        93562,
        lowered(aten.as_strided.default, _offset_forgotten),
        lambda x: x.as_strided((2, 2), (3, 1), 4) * 2,
        normal((4, 4)),
        "lowering",
    ),
    "padding of one element": KnownFault(
        "a tensor of one element is padded with this element",
        144462,
        lowered(aten.constant_pad_nd.default, _one_element_everywhere),
        lambda x: F.pad(x, (2, 3), value=0.5).sin(),
        normal((1, 1, 1)),
        "lowering",
    ),
    "a denominator below zero": KnownFault(
        "a variance with a correction above the number of elements is negative",
        113167,
        lowered(aten.var.correction, _denominator_below_zero),
        lambda x: torch.var(x, 1, correction=5.0),
        normal((3, 4)),
    ),
    "comparisons without promotion": KnownFault(
        "whole numbers are compared with a fraction in whole numbers",
        95695,
        lowered(aten.ge.Scalar, _dtype_of_first),
        lambda x: x >= 2.5,
        given([1, 2, 3, 4]),
        "lowering",
    ),
    "the largest of booleans": KnownFault(
        "`max` along a dimension turns booleans into whole numbers",
        109264,
        lowered(aten.max.dim, _promoted),
        lambda x: torch.max(x > 0, 1).values,
        normal((3, 4)),
        "lowering",
    ),
}
