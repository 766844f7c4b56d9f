"""A bias of whole numbers: int32, in steps of input scale times weight scale, around zero.

That is the accumulator's own unit (Jacob et al. 2018, section 2.4), so integer kernels add it as it is; they never look
at another scale that the bias might be given.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion.nodes import set_argument
from foldproof.qat.image import Image, Leaves
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import INT32_MAX, INT32_MIN, Dequantized, decomposed
from foldproof.qat.rewriting import Recipe, Rewriting

_LARGEST = 2**31 - 128
"""The largest number below 2^31 that float32 holds: torch's quantization clamps in float32, and 2^31 wraps around."""


@dataclass(frozen=True)
class Bias:
    """A new bias: what it is, how far its rounding moves it, and which channels did not fit into 32 bits.

    ``bound`` is in the units of the operator's output; ``step`` is the largest step, 0 for a bias that stays float.
    ``name`` is that of the constant which holds it.
    """

    name: str
    value: Tensor
    bound: float
    step: float
    saturated: tuple[int, ...] = ()


def give_bias(
    rewriting: Rewriting, operator: Operator, at: Node, real: Recipe, scale: Recipe | None, quantized: bool
) -> Bias:
    """Gives the host's node ``at`` the bias that ``real`` computes.

    Where input and weight are quantized (and ``quantized`` asks for it) it becomes whole numbers, else it is rounded to
    the dtype of the weight. ``scale`` is what the weight's scales are multiplied by, None for 1.
    """
    image, base = rewriting.image, f"{at.name}_bias_folded"
    value = _computed(real, image.tensors)
    given, weight = operator.input, operator.quantized_weight
    if not quantized or given is None or weight is None:
        dtype = _dtype(rewriting, operator)
        node = rewriting.constant(base, real, dtype)
        set_argument(at, "bias", node)
        return Bias(rewriting.names[node], value, float((value.to(dtype).double() - value).abs().max()), 0.0)
    unit: Any = given.scale
    if scale is None and weight.axis is None:
        step: Any = unit * weight.scale

        def whole(leaves: Leaves) -> Tensor:
            made: Tensor = decomposed.quantize_per_tensor(
                real(leaves).to(torch.float32), step, 0, INT32_MIN, _LARGEST, torch.int32
            )
            return made

        node = rewriting.constant(base, whole, torch.int32)
        back = rewriting.call(
            at, decomposed.dequantize_per_tensor.default, node, step, 0, INT32_MIN, INT32_MAX, torch.int32
        )
        steps = torch.full_like(value, step)
    else:
        channels = len(value)

        def scales(leaves: Leaves) -> Tensor:
            return weight_scales(rewriting, weight, channels, scale, leaves).mul(unit)

        def whole(leaves: Leaves) -> Tensor:
            zeros = torch.zeros(channels, dtype=torch.int64)
            made: Tensor = decomposed.quantize_per_channel(
                real(leaves).to(torch.float32), scales(leaves), zeros, 0, INT32_MIN, _LARGEST, torch.int32
            )
            return made

        node = rewriting.constant(base, whole, torch.int32)
        held = rewriting.constant(f"{base}_scale", scales, torch.float32)
        zeros = rewriting.constant(
            f"{base}_zero_point", lambda _: torch.zeros(channels, dtype=torch.int64), torch.int64
        )
        back = rewriting.call(
            at,
            decomposed.dequantize_per_channel.default,
            *(node, held, zeros, 0, INT32_MIN, INT32_MAX, torch.int32),
        )
        steps = _computed(scales, image.tensors)
    set_argument(at, "bias", back)
    return _rounded(at, rewriting.names[node], value, steps)


def weight_scales(
    rewriting: Rewriting, weight: Dequantized, channels: int, scale: Recipe | None, leaves: Leaves
) -> Tensor:
    """The scales of the weight's channels, times ``scale``."""
    if weight.axis is None:
        found: Tensor = torch.full((channels,), weight.scale, dtype=torch.float64)
    else:
        found = rewriting.image.evaluate(weight.scale, leaves)
        if len(found) != channels:  # of a transposed convolution in groups, whose weight has those of one group only
            found = found.repeat(channels // len(found))
    return found if scale is None else found * scale(leaves)


def _computed(recipe: Recipe, tensors: Leaves) -> Tensor:
    with torch.no_grad():
        return recipe(tensors).detach().to(torch.float64)


def _rounded(at: Node, name: str, value: Tensor, steps: Tensor) -> Bias:
    whole = (value / steps).round()
    cut = whole.clamp(INT32_MIN, _LARGEST)
    saturated = tuple(int(i) for i in ((whole - cut).abs() > 128).nonzero().flatten())
    if saturated:
        warnings.warn(
            f"the bias of {at.name} does not fit into int32 in channel{'s'[: len(saturated) > 1]}"
            f" {', '.join(map(str, saturated))}, and is cut off there",
            stacklevel=2,
        )
    bound = max(float(steps.max()) / 2, float((cut * steps - value).abs().max()))
    return Bias(name, value, bound, float(steps.max()), saturated)


def _dtype(rewriting: Rewriting, operator: Operator) -> torch.dtype:
    value = operator.node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else torch.float32


def is_right(operator: Operator, image: Image) -> bool:
    """Is the bias one of whole numbers already, in the steps that integer kernels take it to have?"""
    found, given, weight = Dequantized.of(operator.bias), operator.input, operator.quantized_weight
    if found is None or given is None or weight is None or found.dtype is not torch.int32:
        return False
    steps, scales, zeros = (
        torch.as_tensor(image.evaluate(x, image.tensors), dtype=torch.float64).flatten()
        for x in (found.scale, weight.scale, found.zero_point)
    )
    expected = scales * given.scale
    if len(steps) not in (1, len(expected)) and len(expected) != 1:
        return False
    close = bool(((steps - expected).abs() <= 1e-5 * expected.abs()).all())
    return close and not bool(zeros.any())
