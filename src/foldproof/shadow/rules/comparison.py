"""Operators that give booleans or indices: ordinary tensors, decided by value."""

from __future__ import annotations

from typing import Any

import torch

from foldproof.shadow.call import Call
from foldproof.shadow.registry import branch
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@branch(
    aten.all.default,
    aten.all.dim,
    aten.all.dims,
    aten.any.default,
    aten.any.dim,
    aten.any.dims,
    aten.argmax.default,
    aten.argmin.default,
    aten.bucketize.Scalar,
    aten.bucketize.Tensor,
    aten.count_nonzero.default,
    aten.count_nonzero.dim_IntList,
    aten.eq.Scalar,
    aten.eq.Tensor,
    aten.ge.Scalar,
    aten.ge.Tensor,
    aten.gt.Scalar,
    aten.gt.Tensor,
    aten.isin.Tensor_Scalar,
    aten.isin.Tensor_Tensor,
    aten.isinf.default,
    aten.isnan.default,
    aten.isneginf.default,
    aten.isposinf.default,
    aten.le.Scalar,
    aten.le.Tensor,
    aten.logical_and.default,
    aten.logical_not.default,
    aten.logical_or.default,
    aten.logical_xor.default,
    aten.lt.Scalar,
    aten.lt.Tensor,
    aten.ne.Scalar,
    aten.ne.Tensor,
    aten.nonzero.default,
    aten.nonzero_static.default,
    aten.searchsorted.Scalar,
    aten.searchsorted.Tensor,
    aten.signbit.default,
)
def decided_by_value(call: Call, *args: Any, **kwargs: Any) -> None:
    """an ordinary tensor, as the values are"""


@branch(aten.histc.default)
def counted_by_value(call: Call, *args: Any, **kwargs: Any) -> Residue:
    """counts, as the values are"""
    return call.residue(call.result)
