"""Linear interpolation: matrices of exact fractions along each dimension."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from foldproof.field import Size
from foldproof.shadow.call import Call
from foldproof.shadow.registry import exact
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


def _weights(size: int, out: int, align_corners: bool, factor: float | None) -> list[dict[int, Fraction]]:
    """For each output, the weights of the inputs that it interpolates (torch's area_pixel_compute_source_index)."""
    if align_corners:
        step = Fraction(size - 1, out - 1) if out > 1 else Fraction(0)
    else:
        step = 1 / Fraction(factor) if factor else Fraction(size, out)
    rows = []
    for i in range(out):
        at = step * i if align_corners else max(step * (i + Fraction(1, 2)) - Fraction(1, 2), Fraction(0))
        low = min(int(at), size - 1)
        row = {low: 1 - (at - low)}
        high = min(low + 1, size - 1)
        row[high] = row.get(high, Fraction(0)) + (at - low)
        rows.append(row)
    return rows


def _matrix(call: Call, size: int, out: int, align_corners: bool, factor: float | None, device: Any) -> Residue:
    """The (size, out) interpolation matrix as residues over one common denominator."""
    rows = _weights(size, out, align_corners, factor)
    common = 1
    for row in rows:
        for w in row.values():
            common = common * w.denominator // math.gcd(common, w.denominator)
    parts = []
    for field in call.draw.fields:
        m = torch.zeros(size, out, dtype=torch.float64)
        for i, row in enumerate(rows):
            for j, w in row.items():
                m[j, i] = field.number(int(w * common))
        parts.append(field.reduce(m).to(device))
    whole = Residue(call.draw, tuple(parts), Size.constant(0, float(common.bit_length())))
    return whole / call.residue(common)




def _interpolate(call: Call, x: Tensor, align_corners: bool, factors: list[float | None]) -> Residue:
    residue, out = call.residue(x), call.first_result
    n = len(factors)
    for d, factor in zip(range(-n, 0), factors):
        matrix = _matrix(call, x.shape[d], out.shape[d], align_corners, factor, x.device)
        residue = residue.map(lambda part: part.movedim(-n, -1)).matmul(matrix)
    return residue


@exact(aten.upsample_bilinear2d.vec, aten.upsample_linear1d.vec, aten.upsample_trilinear3d.vec)
def upsample_vec(
    call: Call, x: Tensor, size: list[int] | None, align_corners: bool, scale_factors: list[float] | None
) -> Residue:
    """weights as exact fractions, whatever precision the kernel computes them in"""
    n = x.ndim - 2
    return _interpolate(call, x, align_corners, list(scale_factors) if scale_factors else [None] * n)


@exact(aten.upsample_bilinear2d.default, aten.upsample_linear1d.default, aten.upsample_trilinear3d.default)
def upsample(call: Call, x: Tensor, size: list[int], align_corners: bool, *factors: float | None, **kw: Any) -> Residue:
    """weights as exact fractions, whatever precision the kernel computes them in"""
    n = x.ndim - 2
    given = [*factors, *kw.values(), *[None] * n][:n]
    return _interpolate(call, x, align_corners, given)
