"""Arithmetic of convolution weights, (C_out, C_in/groups, *kernel); those of linears have no kernel axes."""

from __future__ import annotations

import torch
from torch import Tensor


def regroup(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """Return the weight of ``groups`` groups as one of fewer, ``wanted`` groups, with zeros between the old ones."""
    if groups == wanted:
        return weight
    outputs, inputs, *kernel = weight.shape
    blocks = groups // wanted
    rows = weight.reshape(wanted, blocks, outputs // groups, 1, inputs, *kernel)
    own = torch.eye(blocks, dtype=weight.dtype, device=weight.device)
    own = own.reshape(1, blocks, 1, blocks, 1, *[1] * len(kernel))
    return (rows * own).reshape(outputs, blocks * inputs, *kernel)


def place(weight: Tensor, offset: tuple[int, ...], kernel: tuple[int, ...]) -> Tensor:
    """Return the weight in a larger ``kernel`` of zeros, with the first tap at ``offset``."""
    sides: list[int] = []
    for size, inner, at in zip(kernel[::-1], weight.shape[:1:-1], offset[::-1], strict=True):
        sides += [at, size - inner - at]
    return torch.nn.functional.pad(weight, sides)


def make_diagonal(scale: Tensor | None, channels: int, kernel: tuple[int, ...], divisor: float) -> Tensor:
    """Return the depthwise weight that scales each channel and divides it, at each place of the kernel."""
    shape = (channels, 1, *kernel)
    if scale is None:
        scale = torch.zeros(channels, dtype=torch.float64) + 1  # zeros of a proof carry residues
    return scale.reshape(channels, 1, *[1] * len(kernel)).expand(shape) / divisor


def compose(outer: Tensor, inner: Tensor, outer_groups: int, inner_groups: int, groups: int) -> Tensor:
    """Return the weight of an operator behind another, of which one has kernels of size 1."""
    dtype = torch.promote_types(outer.dtype, inner.dtype)
    outer, inner = regroup(outer.to(dtype), outer_groups, groups), regroup(inner.to(dtype), inner_groups, groups)
    outputs, between, *outer_kernel = outer.shape
    _, inputs, *inner_kernel = inner.shape
    after = outer.reshape(groups, outputs // groups, between, -1)  # (g, o, m, taps)
    before = inner.reshape(groups, between, inputs, -1)  # (g, m, i, taps)
    if before.shape[-1] == 1:
        found = after.permute(0, 3, 1, 2) @ before.squeeze(-1).unsqueeze(1)  # (g, taps, o, i)
        return found.permute(0, 2, 3, 1).reshape(outputs, inputs, *outer_kernel)
    found = after.squeeze(-1) @ before.reshape(groups, between, -1)
    return found.reshape(outputs, inputs, *inner_kernel)


def join(base: Tensor, other: Tensor, factor: float, whole: float) -> Tensor:
    """Return whole·(base + factor·other)."""
    total = base + (other if factor == 1 else other * factor)
    return total if whole == 1 else total * whole


def times(x: Tensor, factor: float) -> Tensor:
    return x * factor


def swap(weight: Tensor) -> Tensor:
    return weight.transpose(-1, -2)


def make_rows(columns: Tensor, bias: Tensor | None) -> Tensor:
    """Return the table whose rows are these columns, each with the bias."""
    rows = columns.transpose(-1, -2)
    return rows if bias is None else rows + bias
