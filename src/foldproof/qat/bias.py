"""A bias of whole numbers: int32, in steps of input scale times weight scale, around zero.

That is the accumulator's own unit (Jacob et al. 2018, section 2.4), so integer kernels add it as it is; they never look
at another scale that the bias might be given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from foldproof.graph.nodes import operator_of, set_argument
from foldproof.qat.image import Image, Leaves, precisely
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import INT32_MAX, INT32_MIN, Dequantized, decomposed
from foldproof.qat.rewriting import Recipe, Rewriting
from foldproof.qat.weight import steps_of_channels
from foldproof.rewriting.refusal import CannotFold
from foldproof.rounding import Float64


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


def float_bias(rewriting: Rewriting, operator: Operator, at: Node, real: Recipe) -> Bias:
    """Gives the host's node ``at`` the bias that ``real`` computes, rounded to the dtype of the weight."""
    node = rewriting.constant(f"{at.name}_bias_folded", real, operator.dtype)
    set_argument(at, "bias", node)
    name = rewriting.names[node]
    value, held = _computed(real, rewriting), rewriting.host.constants.tensors[name].double()
    return Bias(name, value, float((held - value).abs().max()), 0.0)


def whole_bias(rewriting: Rewriting, operator: Operator, at: Node, real: Recipe, scale: Recipe | None) -> Bias:
    """Gives ``at``, whose input and weight are quantized, the bias that ``real`` computes in whole numbers.

    ``scale`` is what the weight's scales are multiplied by, None for 1.
    """
    given, weight = operator.input, operator.quantized_weight
    assert given is not None and weight is not None
    base, unit = f"{at.name}_bias_folded", given.scale
    by_channel = steps_of_channels(rewriting, operator, scale)
    limits = (INT32_MIN, INT32_MAX, torch.int32)

    def scales(leaves: Leaves) -> Tensor:
        return by_channel(leaves).mul(unit)

    back: Node
    if scale is None and weight.axis is None:
        step = unit * weight.scale
        node = rewriting.constant(base, lambda leaves: _whole(real, lambda _: step, leaves), torch.int32)
        back = rewriting.call(at, decomposed.dequantize_per_tensor.default, node, step, 0, *limits)
    else:
        zero = torch.zeros(operator.channels, dtype=torch.int64)
        node = rewriting.constant(base, lambda leaves: _whole(real, scales, leaves), torch.int32)
        held = rewriting.constant(f"{base}_scale", scales, torch.float32)
        zeros = rewriting.constant(f"{base}_zero_point", lambda _: zero, torch.int64)
        back = rewriting.call(at, decomposed.dequantize_per_channel.default, node, held, zeros, 0, *limits)
    set_argument(at, "bias", back)
    value, steps = _computed(real, rewriting), _computed(scales, rewriting)
    return _rounded(at, rewriting.names[node], value, _held(rewriting, back), steps)


def require_unit(rewriting: Rewriting, operator: Operator, scale: Recipe | None) -> None:
    """
    Raises:
        CannotFold: a step of the bias is too small or too large for the float32 that it is dequantized with.
    """
    given, numbers = operator.input, torch.finfo(torch.float32)
    assert given is not None
    steps = _computed(steps_of_channels(rewriting, operator, scale), rewriting).abs() * given.scale
    if not bool(((steps >= numbers.tiny) & (steps <= numbers.max)).all()):
        raise CannotFold(
            f"the scale of {operator.node.name}'s input times that of its weight, which a whole bias is in steps of, is"
            " no number that float32 holds with all its digits"
        )


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


def _whole(real: Recipe, steps: Callable[[Leaves], Any], leaves: Leaves) -> Tensor:
    """The bias in whole numbers, by the operators that quantize, but in float64."""
    with precisely(leaves.values()):
        x, unit = real(leaves).to(torch.float32), steps(leaves)
        made: Any
        if isinstance(unit, float):
            made = decomposed.quantize_per_tensor(x, unit, 0, INT32_MIN, INT32_MAX, torch.int32)
        else:
            zeros = torch.zeros(len(x), dtype=torch.int64)
            made = decomposed.quantize_per_channel(x, unit, zeros, 0, INT32_MIN, INT32_MAX, torch.int32)
    whole: Tensor = made
    return whole


def _computed(recipe: Recipe, rewriting: Rewriting) -> Tensor:
    with torch.no_grad():
        return recipe(rewriting.image.tensors).detach().to(torch.float64)


def _held(rewriting: Rewriting, back: Node) -> Tensor:
    """What a new dequantization really gives, in float64."""
    held = rewriting.host.constants
    args = map_arg(back.args, lambda node: held.tensors[held.names[node]])
    operator = operator_of(back)
    assert operator is not None
    with Float64():
        found: Tensor = operator(*args)
    return found


def _rounded(at: Node, name: str, value: Tensor, held: Tensor, steps: Tensor) -> Bias:
    saturated = tuple(int(i) for i in ((held - value).abs() > steps).nonzero().flatten())
    if saturated:
        warnings.warn(
            f"the bias of {at.name} does not fit into int32 in channel{'s'[: len(saturated) > 1]}"
            f" {', '.join(map(str, saturated))}, and is cut off there",
            stacklevel=2,
        )
    bound = max(float(steps.max()) / 2, float((held - value).abs().max()))
    return Bias(name, value, bound, float(steps.max()), saturated)
