"""A quantization that stands between a linear operator and the chain after it: left out, or moved behind the chain.

It was observed on values that nobody sees once the chain is folded. Where what follows quantizes anyway, it only rounds
twice, and goes. Where nothing does, it moves behind the chain with limits that hold all that it let through. Neither is
the same function; how far apart they are is bounded by interval arithmetic over the quantized input and the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion.nodes import kind_of, operator_of, value_readers
from foldproof.fusion.refusal import CannotFold
from foldproof.qat.chain import ChannelAffine
from foldproof.qat.image import Image
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import QUANTIZE, Quantization
from foldproof.verdict import ApproximationStep

_FUSED = {"relu", "relu_", "hardtanh", "hardtanh_", "clamp"}
"""What integer kernels do together with the operator before it, so that the quantization may come after it."""


@dataclass(frozen=True)
class Moved:
    """The quantization as it is behind the chain."""

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int


def quantized_anyway(end: Node) -> bool:
    """Do all readers of this value quantize it, perhaps after a relu?"""
    readers = value_readers(end)
    return bool(readers) and all(
        operator_of(reader) in QUANTIZE or (kind_of(reader) in _FUSED and quantized_anyway(reader))
        for reader in readers
    )


def moved_behind(pair: Quantization, affine: ChannelAffine) -> Moved:
    """With the same limits, and a scale and zero point for all that comes through it and the affine."""
    ends = torch.stack([affine.scale * pair.low + affine.shift, affine.scale * pair.high + affine.shift])
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    scale = (high - low) / (pair.quant_max - pair.quant_min)
    zero = round(pair.quant_min - low / scale)
    return Moved(scale, min(max(zero, pair.quant_min), pair.quant_max), pair.quant_min, pair.quant_max)


def step_of(
    pair: Quantization, moved: Moved | None, affine: ChannelAffine, operator: Operator, image: Image
) -> ApproximationStep:
    """How far apart the program with the pair is from the one without it, or with it moved, at the chain's end.

    Raises:
        CannotFold: the operator's input is not quantized, so that nothing bounds what the pair cuts off.
    """
    low, high = _interval(operator, image)
    scale = affine.scale.abs()
    beyond = torch.maximum((high - pair.high).clamp(min=0), (pair.low - low).clamp(min=0))
    bound = float((scale * torch.clamp(beyond, min=pair.scale / 2)).max())
    half = float(scale.max()) * pair.scale / 2
    what = f"the quantization of {operator.node.name}'s own output (in steps of {pair.scale:.3g}) is left out"
    if moved is not None:
        bound, half = bound + moved.scale / 2, half + moved.scale / 2
        what = f"{what[: -len('is left out')]}is moved behind the chain (to steps of {moved.scale:.3g})"
    return ApproximationStep(f"{what}: {half:.3g} where it cut nothing off", bound)


def _interval(operator: Operator, image: Image) -> tuple[Tensor, Tensor]:
    """The least and the greatest that each output channel can be, for any quantized input."""
    given = operator.input
    if given is None:
        raise CannotFold(
            f"an observer stands between {operator.node.name} and its BatchNorm, and its input is not quantized, so"
            " that nothing bounds what the observer cuts off: quantize the input, or do not annotate the operator's own"
            " output"
        )
    tensors = image.tensors
    weight = image.evaluate(operator.weight, tensors).double()
    # Padding puts zeros in, and the edge of a transposed convolution leaves terms out.
    low = min(given.scale * (given.quant_min - given.zero_point), 0.0)
    high = max(given.scale * (given.quant_max - given.zero_point), 0.0)
    if operator.transposed:
        inputs, outputs, *kernel = weight.shape
        weight = weight.reshape(operator.groups, inputs // operator.groups, outputs, *kernel).transpose(1, 2)
        weight = weight.reshape(operator.groups * outputs, inputs // operator.groups, *kernel)
    rows = weight.flatten(1)
    least = torch.minimum(rows * low, rows * high).sum(1)
    greatest = torch.maximum(rows * low, rows * high).sum(1)
    if operator.bias is None:
        return least, greatest
    bias = image.evaluate(operator.bias, tensors).double()
    return least + bias, greatest + bias
