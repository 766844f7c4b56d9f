"""Scaling a weight along its output channels: the steps of a quantized weight, else the weight itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import arguments, insert_call, set_argument
from foldproof.qat.context import Context
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import decomposed
from foldproof.rewriting.edit import Edit, NewConstant
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.vectors import product

Install = Callable[[Node, Mapping[str, Node]], None]


def find_channel_steps(context: Context, operator: Operator, scale: Operand) -> Expression:
    """Return the scales of the quantized weight's channels, times ``scale`` (None for 1)."""
    weight = operator.quantized_weight
    assert weight is not None
    if weight.axis is None:
        steps = Expression(fill, (float(weight.scale), operator.channels))
    else:  # a transposed convolution in groups has the scales of one group only
        steps = Expression(_repeat, (context.expression(weight.scale), operator.channels))
    return steps if scale is None else Expression(torch.mul, (steps, scale))


def scale_steps(context: Context, operator: Operator, scale: Operand) -> tuple[Edit, Operand]:
    """Plan to multiply the scales of the quantized weight; afterwards there is one for each channel.

    If a scale is negative, the integers are negated instead, so that steps stay positive.

    Returns:
        The edit, and the absolute value of ``scale``, by which the steps are multiplied.

    Raises:
        CannotFold: the scale is 0 in a channel, or the weight has no scale for it, or an integer can't be negated.
    """
    weight, at = operator.quantized_weight, operator.node
    assert weight is not None
    if operator.transposed and operator.groups > 1:
        raise CannotFold(
            f"{at.name} is transposed and has {operator.groups} groups, whose channels share the scales of its weight"
        )
    signs = context.value(scale).sign()
    _require(bool(signs.all()), at, signs == 0, "by 0, and the scale of a quantized weight is positive")
    sign = Expression(_make_vector, (tuple(signs.tolist()),))
    size = product(scale, sign)
    base = f"{at.name}_weight"
    wanted = [context.new("scales", f"{base}_scale", find_channel_steps(context, operator, size), torch.float32)]
    if bool((signs < 0).any()):
        turned = Expression(
            _TurnedAround(operator), (context.expression(weight.values), _find_zeros(context, operator), sign)
        )
        after = operator.by_channel(context.value(turned)).flatten(1)
        beyond = (after < weight.quant_min).any(1) | (after > weight.quant_max).any(1)
        why = f"by a negative number, and its weight holds a {weight.quant_min}, which has no opposite"
        _require(not bool(beyond.any()), at, beyond, f"{why} in {weight.quant_min} to {weight.quant_max}")
        wanted.append(context.new("values", base, turned, weight.dtype))
    if not isinstance(weight.zero_point, Node):
        zeros = Expression(fill, (float(weight.zero_point), operator.channels))
        wanted.append(context.new("zeros", f"{base}_zero_point", zeros, torch.int64))
    limits = (weight.quant_min, weight.quant_max, weight.dtype)

    def install(node: Node, new: Mapping[str, Node]) -> None:
        old = arguments(arguments(node)["weight"])
        values, zeros = new.get("values", old["input"]), new["zeros"] if "zeros" in new else old["zero_points"]
        target = decomposed.dequantize_per_channel.default
        back = insert_call(node, node, target, values, new["scales"], zeros, operator.weight_axis, *limits)
        set_argument(node, "weight", back)

    return Edit("weight", at, tuple(wanted), install), size


def scale_weight(context: Context, operator: Operator, scale: Operand) -> list[Edit]:
    """Plan to replace a weight that is not quantized by one constant, times the scale (None for 1).

    No edits if the scale is 1 and the weight is a constant already.
    """
    if scale is None and operator.weight in context.editor.constants.names:
        return []
    weight = context.expression(operator.weight)
    if scale is not None:
        weight = product(weight, Expression(operator.along_channels, (scale,)))
    like = next(iter(context.origins(operator.weight)), None)
    new: NewConstant = context.new("weight", f"{operator.node.name}_weight", weight, operator.dtype, like)
    return [Edit("weight", operator.node, (new,), lambda node, made: set_argument(node, "weight", made["weight"]))]


def fill(value: float, count: int) -> Tensor:
    """Return a vector of ``count`` equal numbers."""
    return torch.full((count,), value, dtype=torch.float64)


def _repeat(vector: Tensor, count: int) -> Tensor:
    return vector.repeat(count // len(vector))


def _make_vector(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class _TurnedAround:
    """Negation of integers around their zero points in some channels."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def __call__(self, values: Tensor, zeros: Tensor | float, signs: Tensor) -> Tensor:
        zero = self._operator.along_channels(zeros) if isinstance(zeros, Tensor) else zeros
        return (values.to(torch.float64) - zero) * self._operator.along_channels(signs) + zero


def _require(holds: bool, at: Node, wrong: Tensor, why: str) -> None:
    if not holds:
        numbers = wrong.nonzero().flatten().tolist()
        channels = f"channel{'s'[: len(numbers) > 1]} {', '.join(map(str, numbers))}"
        raise CannotFold(f"the affine after {at.name} scales {channels} {why}: fold before the weight is quantized")


def _find_zeros(context: Context, operator: Operator) -> Operand:
    assert operator.quantized_weight is not None
    return context.expression(operator.quantized_weight.zero_point)
