"""Operators that make a tensor after the likeness of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
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
)
def filled(call: Call, *args: Any, **kwargs: Any) -> Residue | None:
    """the exact residue of the number, everywhere"""
    made = call.first_result
    if not made.dtype.is_floating_point:
        return None
    number = call.arguments.get("fill_value", int("ones" in call.operator.overloadpacket.__name__))
    return _everywhere(call, number)


@exact(aten.fill.Scalar, aten.fill.Tensor)
def fill(call: Call, x: Tensor, value: Any) -> Residue:
    """the residue of the value, everywhere"""
    return _everywhere(call, value)


def _everywhere(call: Call, value: Any) -> Residue:
    return call.residue(value).map(lambda part: part.expand(call.first_result.shape).clone())


@exact(aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default)
def empty(call: Call, *args: Any, **kwargs: Any) -> Residue | None:
    """random residues: nothing may depend on uninitialised memory"""
    made = call.first_result.zero_()
    return call.draw.variable(made, data=True) if made.dtype.is_floating_point else None
