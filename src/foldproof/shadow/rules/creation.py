"""Operators that make a tensor of given properties, or with those of another tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.leaves import draw_variable, is_number
from foldproof.shadow.registry import exact
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@exact(
    aten.full_like.default,
    aten.new_full.default,
    aten.new_ones.default,
    aten.new_zeros.default,
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.zero.default,
    complex=True,
)
def filled(call: Call, *args: Any, **kwargs: Any) -> Residue | None:
    """the exact residues of the constant"""
    made = call.first_result
    return call.residue(made) if is_number(made.dtype) else None


@exact(aten.fill.Scalar, aten.fill.Tensor, complex=True)
def fill(call: Call, x: Tensor, value: Any) -> Residue:
    """the residue of the value, everywhere"""
    return call.stored(value).map(lambda part: part.expand(x.shape).clone())


@exact(aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default, complex=True)
def empty(call: Call, *args: Any, **kwargs: Any) -> Residue | None:
    """random residues: nothing may depend on uninitialised memory"""
    made = call.first_result.zero_()
    return draw_variable(call.point, made, data=True) if is_number(made.dtype) else None
