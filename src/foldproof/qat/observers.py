"""A quantization that stands between a linear operator and the chain after it: left out, or moved behind the chain.

It was observed on values that nobody sees once the chain is folded. Where what follows quantizes anyway, it only rounds
twice, and goes. Where nothing does, it moves behind the chain with limits that hold all that it let through. Neither is
the same function. How far apart they are is bounded by interval arithmetic, from the quantized input through weights
and chain: a quantization moves what is within its limits by half a step at most, and what is beyond them by as much as
it is beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from foldproof.graph.nodes import kind_of, operator_of, value_readers
from foldproof.qat.chain import Chain, ChainAffine, ChannelAffine, Interval
from foldproof.qat.context import Context
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import QUANTIZE, Quantization
from foldproof.rewriting.refusal import CannotFold
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
    dtype: torch.dtype


def quantized_anyway(end: Node) -> bool:
    """Do all readers of this value quantize it, perhaps after a relu?"""
    readers = value_readers(end)
    return bool(readers) and all(
        operator_of(reader) in QUANTIZE or (kind_of(reader) in _FUSED and quantized_anyway(reader))
        for reader in readers
    )


def moved_behind(pair: Quantization, affine: ChannelAffine) -> Moved:
    """With the same limits, and a scale and zero point for all that comes through it and the affine after it."""
    ends = torch.stack([affine.scale * pair.low + affine.shift, affine.scale * pair.high + affine.shift])
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    scale = (high - low or 1.0) / (pair.quant_max - pair.quant_min)
    zero = round(pair.quant_min - low / scale)
    return Moved(scale, min(max(zero, pair.quant_min), pair.quant_max), pair.quant_min, pair.quant_max, pair.dtype)


def left_out(
    chain: Chain, affine: ChainAffine, operator: Operator, context: Context
) -> tuple[Moved | None, tuple[ApproximationStep, ...]]:
    """What the chain's last quantization becomes behind it, if it is needed there, and a step for each that goes.

    The bounds are those of the chain's end, between the program with the quantizations and the one without.

    Raises:
        CannotFold: the operator's input is not quantized, so that nothing bounds what is cut off.
    """
    if not chain.pairs:
        return None, ()
    moved, steps = None, []
    here, interval = chain.start, _interval(operator, context)
    for pair in chain.pairs:
        seen = affine.between(here, pair.operand).of(interval)
        after = affine.between(pair.dequantize, chain.end)
        if pair is chain.pairs[-1] and not quantized_anyway(chain.end):
            moved = moved_behind(pair, after)
        steps.append(_step(pair, moved, seen, after, operator))
        half = pair.scale / 2
        here = pair.dequantize
        interval = (seen[0] - half).clamp(pair.low, pair.high), (seen[1] + half).clamp(pair.low, pair.high)
    return moved, tuple(steps)


def _step(
    pair: Quantization, moved: Moved | None, seen: Interval, after: ChannelAffine, operator: Operator
) -> ApproximationStep:
    scale = after.scale.abs()
    beyond = torch.maximum(seen[1] - pair.high, pair.low - seen[0])
    bound = float((scale * beyond.clamp(min=pair.scale / 2)).max())
    half = float(scale.max()) * pair.scale / 2
    what = f"a quantization between {operator.node.name} and its BatchNorm (in steps of {pair.scale:.3g})"
    if moved is None:
        return ApproximationStep(f"{what} is left out: {half:.3g} where it cut nothing off", bound)
    # What the new one cuts off, the old one did, too: it holds all that the old one lets through, but for half a step.
    bound, half = bound + moved.scale / 2, half + moved.scale / 2
    steps = f"to steps of {moved.scale:.3g}"
    return ApproximationStep(f"{what} is moved behind it ({steps}): {half:.3g} where it cut nothing off", bound)


def _interval(operator: Operator, context: Context) -> Interval:
    """The least and the greatest that each output channel can be, for any quantized input."""
    given = operator.input
    if given is None:
        raise CannotFold(
            f"an observer stands between {operator.node.name} and its BatchNorm, and its input is not quantized, so"
            " that nothing bounds what the observer cuts off: quantize the input, or do not annotate the operator's own"
            " output"
        )
    # Padding puts zeros in, and the edge of a transposed convolution leaves terms out.
    low, high = (given.scale * (limit - given.zero_point) for limit in given.limits)
    low, high = min(low, 0.0), max(high, 0.0)
    rows = operator.by_channel(context.value(operator.weight)).flatten(1)
    least = torch.minimum(rows * low, rows * high).sum(1)
    greatest = torch.maximum(rows * low, rows * high).sum(1)
    if operator.bias is None:
        return least, greatest
    bias = context.value(operator.bias)
    return least + bias, greatest + bias
