"""Distance of outputs to the float64 result."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.rounding import Float64
from zoo.architecture import Sample
from zoo.tools import tensors


def truth(sample: Sample) -> list[Tensor]:
    """The model's outputs with parameters, inputs and intermediate values in float64.

    Raises:
        RuntimeError: an operator of the model has no float64 form.
    """
    wide = copy.deepcopy(sample.model).double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in sample.inputs)
    with torch.no_grad(), Float64():
        return tensors(wide(*inputs))


def error(outputs: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """Distance of floating-point outputs to the float64 result: relative root mean square of the worst output.

    Raises:
        ValueError: there are more or fewer outputs, or their shapes differ.
    """
    if [x.shape for x in outputs] != [x.shape for x in true]:
        shapes, expected = ([list(x.shape) for x in some] for some in (outputs, true))
        raise ValueError(f"its outputs have the shapes {shapes}, and the model's {expected}")
    floats = [(x.double(), t) for x, t in zip(outputs, true, strict=True) if t.is_floating_point()]
    return max(_distance(x, t) / (_size(t[t.isfinite()]) or 1) for x, t in floats)


def _distance(x: Tensor, t: Tensor) -> float:
    same = (x == t) | (x.isnan() & t.isnan())  # a mask of -inf on both sides is no error
    size = _size(torch.where(same, 0, x - t))
    return math.inf if math.isnan(size) else size


def _size(x: Tensor) -> float:
    return float(x.square().mean().sqrt()) if x.numel() else 0.0
