"""Quantizations between a linear operator and the chain after it: left out, or moved behind the chain.

Such a quantization was calibrated on values that no longer exist once the chain is folded. If the readers of the chain
quantize its value, the quantization would only round twice, so it is left out. Otherwise it is moved behind the chain,
with limits that contain everything that it let through. Neither keeps the function. Interval arithmetic bounds the
difference, from the quantized input through weights and chain: a quantization moves a value within its limits by at
most half a step, and a value beyond them by its distance from the limit.
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
"""Operators that integer kernels fuse with the one before them, so that the quantization may come after them."""


@dataclass(frozen=True)
class Moved:
    """A quantization after it was moved behind the chain."""

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype


def is_quantized_anyway(end: Node) -> bool:
    """Return True if all readers of this value quantize it, perhaps after a relu."""
    readers = value_readers(end)
    return bool(readers) and all(
        operator_of(reader) in QUANTIZE or (kind_of(reader) in _FUSED and is_quantized_anyway(reader))
        for reader in readers
    )


def move_behind(pair: Quantization, affine: ChannelAffine) -> Moved:
    """Return the quantization with the same integer limits, for the range of its values after the affine."""
    ends = torch.stack([affine.scale * pair.low + affine.shift, affine.scale * pair.high + affine.shift])
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    scale = (high - low or 1.0) / (pair.quant_max - pair.quant_min)
    zero = round(pair.quant_min - low / scale)
    return Moved(scale, min(max(zero, pair.quant_min), pair.quant_max), pair.quant_min, pair.quant_max, pair.dtype)


def leave_out(
    chain: Chain, affine: ChainAffine, operator: Operator, context: Context
) -> tuple[Moved | None, tuple[ApproximationStep, ...]]:
    """Move the chain's last quantization behind it, if it is needed there, and leave out the others.

    Returns:
        The moved quantization or None, and a step for each original one. Bounds are those of the difference at the
        chain's end, between the programs with and without the quantizations.

    Raises:
        CannotFold: the operator's input is not quantized, so the clipped amount has no bound.
    """
    if not chain.pairs:
        return None, ()
    moved, steps = None, []
    here, interval = chain.start, _bound_output(operator, context)
    for pair in chain.pairs:
        seen = affine.between(here, pair.operand).of(interval)
        after = affine.between(pair.dequantize, chain.end)
        if pair is chain.pairs[-1] and not is_quantized_anyway(chain.end):
            moved = move_behind(pair, after)
        steps.append(_make_step(pair, moved, seen, after, operator))
        half = pair.scale / 2
        here = pair.dequantize
        interval = (seen[0] - half).clamp(pair.low, pair.high), (seen[1] + half).clamp(pair.low, pair.high)
    return moved, tuple(steps)


def _make_step(
    pair: Quantization, moved: Moved | None, seen: Interval, after: ChannelAffine, operator: Operator
) -> ApproximationStep:
    scale = after.scale.abs()
    beyond = torch.maximum(seen[1] - pair.high, pair.low - seen[0])
    bound = float((scale * beyond.clamp(min=pair.scale / 2)).max())
    half = float(scale.max()) * pair.scale / 2
    what = f"a quantization between {operator.node.name} and its BatchNorm (in steps of {pair.scale:.3g})"
    if moved is None:
        return ApproximationStep(f"{what} is left out: {half:.3g} where it cut nothing off", bound)
    # The new limits contain everything that the old ones let through, up to half a step, so the new one clips nothing
    # else.
    bound, half = bound + moved.scale / 2, half + moved.scale / 2
    steps = f"to steps of {moved.scale:.3g}"
    return ApproximationStep(f"{what} is moved behind it ({steps}): {half:.3g} where it cut nothing off", bound)


def _bound_output(operator: Operator, context: Context) -> Interval:
    """Bound each output channel over all quantized inputs."""
    given = operator.input
    if given is None:
        raise CannotFold(
            f"an observer stands between {operator.node.name} and its BatchNorm, and its input is not quantized, so"
            " the amount that the observer clips has no bound: quantize the input, or do not annotate the operator's"
            " own output"
        )
    # Padding adds zeros, and a transposed convolution has fewer terms at the border, so the intervals include 0.
    low, high = (given.scale * (limit - given.zero_point) for limit in given.limits)
    low, high = min(low, 0.0), max(high, 0.0)
    rows = operator.by_channel(context.value(operator.weight)).flatten(1)
    least = torch.minimum(rows * low, rows * high).sum(1)
    greatest = torch.maximum(rows * low, rows * high).sum(1)
    if operator.bias is None:
        return least, greatest
    bias = context.value(operator.bias)
    return least + bias, greatest + bias
