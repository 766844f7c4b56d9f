"""The float64 truth: a program run by the real operators with every floating-point tensor in double precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


def widened(x: Any) -> Any:
    """A tensor or dtype of lower floating-point precision as float64; anything else unchanged."""
    if isinstance(x, Tensor):
        return x.to(torch.float64) if x.dtype in _NARROW else x
    return torch.float64 if x in _NARROW else x


class Float64(TorchDispatchMode):
    """While active, every operator computes in float64: tensors are widened, and so are dtypes that are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._assert_tensor_metadata.default:
            return None
        return func(*_widen(args), **_widen(kwargs or {}))


def _widen(x: Any) -> Any:
    return tree_map(lambda v: widened(v) if isinstance(v, (Tensor, torch.dtype)) else v, x)
