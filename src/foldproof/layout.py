"""Layouts of tensors in memory.

A program may read strides: it views a tensor, or asks whether it is contiguous. PyTorch's own ``clone`` keeps them only
if they leave no gaps, and if no two elements share memory.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foldproof.torch_internals import disable_current_modes


def clone(x: Tensor) -> Tensor:
    """Return a copy in the layout of ``x``: with the same gaps, and the same elements that share memory."""
    made = x.clone()
    if x.layout is not torch.strided or x.is_quantized or made.stride() == x.stride():
        return made
    if not _has_layout(x):
        return copy.deepcopy(x.detach())
    if _keeps_apart(x):
        return laid_out_like(x, made)
    span = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride()))
    return x.as_strided((span,), (1,)).clone().as_strided(x.shape, x.stride())


def clone_apart(x: Tensor) -> Tensor:
    """Return a copy in the layout of ``x``; a dense one, if elements of ``x`` share memory."""
    return keep_layout(x, x.clone())


def keep_layout(like: Tensor, x: Tensor) -> Tensor:
    """Return ``x`` with the strides of ``like``; as it is, if these let elements share memory."""
    return laid_out_like(like, x) if _has_layout(like) and _keeps_apart(like) else x


def laid_out_like(value: Tensor, x: Tensor) -> Tensor:
    """Return ``x`` with the strides of ``value``; along a dimension of stride 0, all elements are the same."""
    if x.stride() == value.stride():
        return x
    shape = [1 if step == 0 else n for n, step in zip(value.shape, value.stride())]
    with disable_current_modes():  # a mode takes new memory for the program's
        canvas = torch.empty_strided(shape, value.stride(), dtype=x.dtype, device=x.device)
    return canvas.copy_(x[tuple(slice(n) for n in shape)]).expand(value.shape)


def _has_layout(x: Tensor) -> bool:
    return type(x) in (Tensor, nn.Parameter) and x.layout is torch.strided and not x.is_quantized


def _keeps_apart(x: Tensor) -> bool:
    """Return True if no two elements share memory: each axis steps over all that the axes of smaller steps reach."""
    reached = 0
    for step, n in sorted((step, n) for n, step in zip(x.shape, x.stride()) if n > 1):
        if step <= reached:
            return False
        reached += (n - 1) * step
    return True
