"""Windows of pooling, as linear functions that add up the elements of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof.shadow.residue import Map


def find_windows(size: int, out: int, device: torch.device) -> Tensor:
    """Return the 0/1 matrix (out, size) of adaptive pooling's windows [floor(i·size/out), ceil((i+1)·size/out))."""
    matrix = torch.zeros(out, size, dtype=torch.float64, device=device)
    for i in range(out):
        matrix[i, i * size // out : -(-(i + 1) * size // out)] = 1
    return matrix


def contract(part: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply the last dimensions by one matrix each."""
    n = len(matrices)
    for matrix in matrices:
        part = part.movedim(-n, -1) @ matrix.T
    return part


def sum_of_windows(x: Tensor, given: Mapping[str, Any], out: Sequence[int]) -> Map:
    """Return the function that adds up the elements of each window of a pooling without counting its padding.

    Args:
        x: a tensor of the operand's shape.
        given: ``kernel_size``, ``stride``, ``padding`` and ``dilation``, each one number for all dimensions, or a list.
        out: the sizes of the pooled dimensions in the result; `ceil_mode` may let windows reach beyond the padding.
    """
    dims, sizes = len(out), x.shape[-len(out) :]
    kernel, padding, dilation = (_each(given[name], dims) for name in ("kernel_size", "padding", "dilation"))
    stride = _each(given["stride"] or kernel, dims)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(out, stride, dilation, kernel)]
    margins = [(p, max(r - n - p, 0)) for r, n, p in zip(reach, sizes, padding)]
    flat = [m for pair in reversed(margins) for m in pair]
    convolve: Any = F.conv2d if dims == 2 else F.conv3d

    def add_up(part: Tensor) -> Tensor:
        padded = F.pad(part.reshape(-1, 1, *sizes), flat)
        sums = convolve(padded, padded.new_ones((1, 1, *kernel)), stride=stride, dilation=dilation)
        windows: Tensor = sums[(..., *(slice(n) for n in out))]
        return windows.reshape(*x.shape[:-dims], *out)

    return add_up


def _each(given: Sequence[int] | int, dims: int) -> list[int]:
    listed = [given] if isinstance(given, int) else list(given)
    return listed * dims if len(listed) == 1 else listed
