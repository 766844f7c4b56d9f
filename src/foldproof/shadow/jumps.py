"""Operators whose results jump: rounding an operand may move a result by more than rounding.

floor(x·w·u) and floor(x·v) with v = w·u are equal over the real numbers. With v rounded, they are a whole step apart at
some inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.shadow import piecewise
from foldproof.shadow.call import Call
from foldproof.shadow.known import facts
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import SamplePoint

_JUMPING = frozenset({"ceil", "floor", "fmod", "heaviside", "remainder", "round", "sign", "trunc"})
"""Uninterpreted functions that jump."""


def note_jump(call: Call, value: Tensor, residue: Residue, operands: Sequence[Tensor]) -> None:
    """Record, in the algebraic reading, a choice by comparison that is not known to be continuous."""
    if not residue.is_algebraic or not value.dtype.is_floating_point:
        return
    found = facts(residue).piecewise
    chosen = any(x.dtype is torch.bool for x in operands)
    if piecewise.is_continuous(found) if found is not None else not chosen:
        return
    call.point.jumping.setdefault(call.operator.overloadpacket.__name__)


def list_jumps(point: SamplePoint) -> tuple[str, ...]:
    """List the operators of a run whose results jump; those that follow values are not among them."""
    # In the algebraic reading, |x| and relu(x) are made of signs, which cancel their jumps.
    uninterpreted = _JUMPING - {"sign"} if point.semantics.algebraic else _JUMPING
    return tuple(dict.fromkeys([*point.jumping, *(name for name in point.uninterpreted if name in uninterpreted)]))
