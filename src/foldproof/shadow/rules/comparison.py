"""Operators that give booleans or indices: ordinary tensors, decided by value."""

from __future__ import annotations

from typing import Any

import torch

from foldproof.shadow.call import Call
from foldproof.shadow.registry import branch

aten = torch.ops.aten


@branch(
    aten.all.default,
    aten.all.dim,
    aten.any.default,
    aten.any.dim,
    aten.any.dims,
    aten.argmax.default,
    aten.argmin.default,
    aten.argsort.default,
    aten.bucketize.Tensor,
    aten.eq.Scalar,
    aten.eq.Tensor,
    aten.ge.Scalar,
    aten.ge.Tensor,
    aten.gt.Scalar,
    aten.gt.Tensor,
    aten.isinf.default,
    aten.isnan.default,
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
    aten.searchsorted.Tensor,
    aten.signbit.default,
)
def decided_by_value(call: Call, *args: Any, **kwargs: Any) -> None:
    """an ordinary tensor, as the values are"""
    return None
