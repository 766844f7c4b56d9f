"""Resizing: as `torch.nn.functional.interpolate` where it has the same mode; nearest neighbours in all modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, whole_numbers

_ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
}
_MODES = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
"""PyTorch's modes, by ONNX's and the number of spatial dimensions."""


@defines("Resize", "Upsample")
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Numbers | None = None,
    sizes: Numbers | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    if keep_aspect_ratio_policy != "stretch" or antialias or exclude_outside:
        raise NotTranslated("Resize that keeps the aspect ratio, or weights by what is inside, has no definition")
    along = [a % x.dim() for a in axes] if axes else [*range(x.dim())]
    if sizes is not None and len(sizes):
        wanted = dict(zip(along, whole_numbers(sizes)))
        by = {axis: n / x.shape[axis] for axis, n in wanted.items()}
    else:
        by = dict(zip(along, map(float, [] if scales is None else scales)))
        wanted = {axis: round(x.shape[axis] * scale) for axis, scale in by.items()}
        # Runtimes compute other sizes, and places, in float32.
        if not all(_in_single(wanted[axis] / x.shape[axis]) == _in_single(scale) for axis, scale in by.items()):
            raise NotTranslated("Resize to a size that is no whole number has no definition")
    by = {axis: scale for axis, scale in by.items() if wanted[axis] != x.shape[axis]}
    if mode != "nearest":
        if mode == "cubic" and not math.isclose(cubic_coeff_a, -0.75):
            raise NotTranslated(f"Resize with the coefficient {cubic_coeff_a} has no definition")
        return _interpolated(x, by, wanted, mode, coordinate_transformation_mode)
    out = x.clone()
    for axis, scale in by.items():
        if x.shape[axis] % wanted[axis] and wanted[axis] % x.shape[axis]:
            raise NotTranslated("Resize to nearest neighbours by a fraction has no definition")
        at = _nearest(x.shape[axis], wanted[axis], scale, coordinate_transformation_mode, nearest_mode)
        out = out.index_select(axis, at.to(x.device))
    return out


def _in_single(x: float) -> float:
    """Return the nearest number of float32, as which ONNX holds a scale."""
    return torch.tensor(x, dtype=torch.float32).item()


def _nearest(n: int, wanted: int, scale: float, transformation: str, rounding: str) -> Tensor:
    """Return the places of the nearest neighbours along one dimension."""
    out = torch.arange(wanted, dtype=torch.float64)
    if transformation == "asymmetric":
        at = out / scale
    elif transformation == "half_pixel" or (transformation == "pytorch_half_pixel" and wanted > 1):
        at = (out + 0.5) / scale - 0.5
    elif transformation == "pytorch_half_pixel":
        at = torch.zeros_like(out)
    elif transformation == "align_corners":
        at = out * (n - 1) / max(wanted - 1, 1)
    else:
        raise NotTranslated(f"Resize with the coordinates {transformation} has no definition")
    return _ROUNDINGS[rounding](at).long().clamp(0, n - 1)


def _interpolated(
    x: Tensor, by: Mapping[int, float], wanted: Mapping[int, int], mode: str, transformation: str
) -> Tensor:
    name = _MODES.get((mode, x.dim() - 2))
    corners = transformation == "align_corners"
    halves = transformation == "half_pixel"
    halves |= transformation == "pytorch_half_pixel" and all(wanted[axis] > 1 for axis in by)
    if name is None or not (corners or halves) or any(axis < 2 for axis in by):
        raise NotTranslated(f"Resize of the mode {mode} with the coordinates {transformation} has no definition")
    sizes = [wanted.get(axis, x.shape[axis]) for axis in range(2, x.dim())]
    return functional.interpolate(x, sizes, mode=name, align_corners=corners)


@defines("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    known = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)  # PyTorch says bilinear in three dimensions, too
    return functional.grid_sample(x, grid, known, padding_mode, bool(align_corners))
