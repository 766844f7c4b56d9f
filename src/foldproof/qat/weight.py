"""A weight that takes a scale of each output channel in: into its steps where it is quantized, else into itself."""

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


def steps_of_channels(context: Context, operator: Operator, scale: Operand) -> Expression:
    """The scales of the quantized weight's channels, times ``scale`` (None for 1)."""
    weight = operator.quantized_weight
    assert weight is not None
    if weight.axis is None:
        steps = Expression(filled, (float(weight.scale), operator.channels))
    else:  # of a transposed convolution in groups there are those of one group only
        steps = Expression(_repeated, (context.expression(weight.scale), operator.channels))
    return steps if scale is None else Expression(torch.mul, (steps, scale))


def scale_steps(context: Context, operator: Operator, scale: Operand) -> tuple[Edit, Operand]:
    """Multiply the scales that the weight is dequantized with: from now on there is one for each channel.

    Where the scale is negative the whole numbers are turned around instead, so that steps stay positive.

    Returns:
        The edit, and the size of ``scale``: what the steps are really multiplied by.

    Raises:
        CannotFold: the scale is 0 in a channel, or has no place in the weight, or numbers can't be turned around.
    """
    weight, at = operator.quantized_weight, operator.node
    assert weight is not None
    if operator.transposed and operator.groups > 1:
        raise CannotFold(
            f"{at.name} is transposed and has {operator.groups} groups, whose channels share the scales of its weight"
        )
    signs = context.value(scale).sign()
    _require(bool(signs.all()), at, signs == 0, "by 0, and the scale of a quantized weight is positive")
    sign = Expression(_vector, (tuple(signs.tolist()),))
    size = product(scale, sign)
    base = f"{at.name}_weight"
    wanted = [context.new("scales", f"{base}_scale", steps_of_channels(context, operator, size), torch.float32)]
    if bool((signs < 0).any()):
        turned = Expression(
            _TurnedAround(operator), (context.expression(weight.values), _zeros(context, operator), sign)
        )
        after = operator.by_channel(context.value(turned)).flatten(1)
        beyond = (after < weight.quant_min).any(1) | (after > weight.quant_max).any(1)
        why = f"by a negative number, and its weight holds a {weight.quant_min}, which has no opposite"
        _require(not bool(beyond.any()), at, beyond, f"{why} in {weight.quant_min} to {weight.quant_max}")
        wanted.append(context.new("values", base, turned, weight.dtype))
    if not isinstance(weight.zero_point, Node):
        zeros = Expression(filled, (float(weight.zero_point), operator.channels))
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
    """Make one constant of a weight that is not quantized: of what it is computed as, times the scale (None for 1).

    Nothing is to be done where the scale is 1 and the weight is a constant already.
    """
    if scale is None and operator.weight in context.editor.constants.names:
        return []
    weight = context.expression(operator.weight)
    if scale is not None:
        weight = product(weight, Expression(operator.along_channels, (scale,)))
    like = next(iter(context.origins(operator.weight)), None)
    new: NewConstant = context.new("weight", f"{operator.node.name}_weight", weight, operator.dtype, like)
    return [Edit("weight", operator.node, (new,), lambda node, made: set_argument(node, "weight", made["weight"]))]


def filled(value: float, count: int) -> Tensor:
    """A vector of one number."""
    return torch.full((count,), value, dtype=torch.float64)


def _repeated(vector: Tensor, count: int) -> Tensor:
    return vector.repeat(count // len(vector))


def _vector(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class _TurnedAround:
    """Whole numbers around zero points, with the opposite sign in some channels."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def __call__(self, values: Tensor, zeros: Tensor | float, signs: Tensor) -> Tensor:
        zero = self._operator.along_channels(zeros) if isinstance(zeros, Tensor) else zeros
        return (values.to(torch.float64) - zero) * self._operator.along_channels(signs) + zero


def _require(holds: bool, at: Node, wrong: Tensor, why: str) -> None:
    if not holds:
        numbers = wrong.nonzero().flatten().tolist()
        channels = f"channel{'s'[: len(numbers) > 1]} {', '.join(map(str, numbers))}"
        raise CannotFold(f"what follows {at.name} scales {channels} {why}: fold before the weight is quantized")


def _zeros(context: Context, operator: Operator) -> Operand:
    assert operator.quantized_weight is not None
    return context.expression(operator.quantized_weight.zero_point)
