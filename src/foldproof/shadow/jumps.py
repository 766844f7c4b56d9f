"""Operators whose results jump: rounding an operand may move a result by more than rounding.

floor(x·w·u) and floor(x·v) with v = w·u are equal over the real numbers. With v rounded, they are a whole step apart at
some inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.shadow import piecewise
from foldproof.shadow.known import facts
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import SamplePoint
from foldproof.shadow.whole import AS_A_WHOLE
from foldproof.torch_internals import OpOverload

_JUMPING = frozenset(
    {
        *("atan2", "ceil", "copysign", "floor", "fmod", "hardshrink", "heaviside", "isinf", "isnan", "remainder"),
        *("round", "sign", "threshold", "trunc"),
    }
)
"""Uninterpreted functions that jump."""

_CONTINUOUS = frozenset(
    {
        *("adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "amin", "aminmax", "cummax", "cummin", "index_reduce"),
        *("kthvalue", "max", "max_pool2d_with_indices", "max_pool3d_with_indices", "median", "min", "nan_to_num"),
        *("scatter_reduce", "softplus", "sort", "topk"),
    }
)
"""Operators read as a whole whose numbers are continuous; any other may jump, as ``mode`` and ``frexp`` do."""


def note_jump(operator: OpOverload, value: Tensor, residue: Residue, operands: Sequence[Tensor]) -> None:
    """Record, in the algebraic reading, a choice by comparison that is not known to be continuous."""
    if not residue.is_algebraic or not value.dtype.is_floating_point:
        return
    found = facts(residue).piecewise
    chosen = any(x.dtype is torch.bool for x in operands)
    if piecewise.is_continuous(found) if found is not None else not chosen:
        return
    residue.point.jumping.setdefault(operator.overloadpacket.__name__)


def list_jumps(point: SamplePoint) -> tuple[str, ...]:
    """List the operators of a run whose results jump; those that follow values are not among them."""
    # In the algebraic reading, |x| and relu(x) are made of signs, which cancel their jumps.
    harmless = {"sign"} if point.semantics.algebraic else set()
    jumping = (name for name in point.uninterpreted if _jumps(name) and name not in harmless)
    return tuple(dict.fromkeys([*point.jumping, *jumping]))


def may_jump(point: SamplePoint) -> bool:
    """Return True if a result of a run may jump, by an operator, by a choice by value, or by a comparison."""
    compared = point.compared and not point.semantics.algebraic  # where pieces tell
    return bool(list_jumps(point) or point.branch or point.escapes or compared)


def _jumps(name: str) -> bool:
    """Return True if an uninterpreted function jumps, as far as is known."""
    whole = name.removesuffix(AS_A_WHOLE)
    return name in _JUMPING if whole == name else whole not in _CONTINUOUS
