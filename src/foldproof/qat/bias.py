"""Integer biases: int32, in steps of input scale times weight scale, with zero point 0.

This is the unit of the accumulator (Jacob et al. 2018, section 2.4), so integer kernels add the bias as it is. They
ignore any other scale of the bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import insert_call, set_argument
from foldproof.qat.context import Context
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import INT32_MAX, INT32_MIN, Dequantized, decomposed
from foldproof.qat.weight import fill, find_channel_steps
from foldproof.rewriting.edit import Edit, PlannedConstant
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold


@dataclass(frozen=True)
class Bias:
    """A new bias: its value, the bound of its rounding, and the channels that did not fit into 32 bits.

    ``bound`` is in the units of the operator's output. ``step`` is the largest step, 0 for a floating-point bias.
    ``name`` is the name of the constant.
    """

    name: str
    value: Tensor
    bound: float
    step: float
    saturated: tuple[int, ...] = ()

    def warn(self, node: str) -> None:
        """Warn if the bias was clipped.

        Warns:
            UserWarning: channels did not fit into 32 bits.
        """
        if self.saturated:
            warnings.warn(
                f"the bias of {node} does not fit into int32 in channel{'s'[: len(self.saturated) > 1]}"
                f" {', '.join(map(str, self.saturated))} and is clipped there",
                stacklevel=2,
            )


def plan_float_bias(context: Context, operator: Operator, real: Operand) -> Edit:
    """Return the edit that sets the bias of an operator to ``real``, rounded to the dtype of the weight."""
    new = context.new("bias", f"{operator.node.name}_bias", real, operator.dtype)
    return Edit("bias", operator.node, (new,), lambda node, made: set_argument(node, "bias", made["bias"]))


def plan_integer_bias(context: Context, operator: Operator, real: Operand, scale: Operand) -> Edit:
    """Return the edit that sets the bias of an operator with quantized input and weight to ``real`` in integers.

    ``scale`` is the factor of the weight's scales, None for 1.
    """
    given, weight = operator.input, operator.quantized_weight
    assert given is not None and weight is not None
    base, limits = f"{operator.node.name}_bias", (INT32_MIN, INT32_MAX, torch.int32)
    if scale is None and weight.axis is None:
        step = given.scale * weight.scale
        whole = context.new("bias", base, Expression(_Whole(), (real, step)), torch.int32)

        def install(node: Node, new: Mapping[str, Node]) -> None:
            target = decomposed.dequantize_per_tensor.default
            set_argument(node, "bias", insert_call(node, node, target, new["bias"], step, 0, *limits))

        return Edit("bias", operator.node, (whole,), install)
    steps = _make_unit(context, operator, scale)
    whole = context.new("bias", base, Expression(_Whole(), (real, steps)), torch.int32)
    scales = context.new("scales", f"{base}_scale", steps, torch.float32)
    none = Expression(fill, (0.0, operator.channels))
    zeros = context.new("zeros", f"{base}_zero_point", none, torch.int64)

    def install_channels(node: Node, new: Mapping[str, Node]) -> None:
        target = decomposed.dequantize_per_channel.default
        back = insert_call(node, node, target, new["bias"], new["scales"], new["zeros"], 0, *limits)
        set_argument(node, "bias", back)

    return Edit("bias", operator.node, (whole, scales, zeros), install_channels)


def read_bias(
    context: Context, operator: Operator, real: Operand, scale: Operand, row: Mapping[str, PlannedConstant]
) -> Bias:
    """Return an account of a planned bias, from `plan_float_bias` or `plan_integer_bias` of ``real`` and ``scale``."""
    made, value = row["bias"], context.value(real)
    held = made.tensor.detach().to("cpu", torch.float64)
    if made.tensor.is_floating_point():
        return Bias(made.name, value, float((held - value).abs().max()), 0.0)
    steps = context.value(_make_unit(context, operator, scale))
    held = held * (row["scales"].tensor.detach().to("cpu", torch.float64) if "scales" in row else steps)
    saturated = tuple(int(i) for i in ((held - value).abs() > steps).nonzero().flatten())
    bound = max(float(steps.max()) / 2, float((held - value).abs().max()))
    return Bias(made.name, value, bound, float(steps.max()), saturated)


def require_unit(context: Context, operator: Operator, scale: Operand) -> None:
    """Check the steps of a bias.

    Raises:
        CannotFold: a step is too small or too large for float32, in which the bias is dequantized.
    """
    numbers = torch.finfo(torch.float32)
    steps = context.value(_make_unit(context, operator, scale)).abs()
    if not bool(((steps >= numbers.tiny) & (steps <= numbers.max)).all()):
        raise CannotFold(
            f"the scale of {operator.node.name}'s input times that of its weight, the step of an integer bias, is"
            " outside the normal numbers of float32"
        )


def is_integer_bias(context: Context, operator: Operator) -> bool:
    """Return True if the bias is an integer one already, in the steps that integer kernels assume."""
    found, given, weight = Dequantized.of(operator.bias), operator.input, operator.quantized_weight
    if found is None or given is None or weight is None or found.dtype is not torch.int32:
        return False
    steps, scales, zeros = (context.value(x).flatten() for x in (found.scale, weight.scale, found.zero_point))
    expected = scales * given.scale
    if len(steps) not in (1, len(expected)) and len(expected) != 1:
        return False
    close = bool(((steps - expected).abs() <= 1e-5 * expected.abs()).all())
    return close and not bool(zeros.any())


def _make_unit(context: Context, operator: Operator, scale: Operand) -> Expression:
    """Return the steps of an integer bias, channel by channel."""
    assert operator.input is not None
    return Expression(torch.mul, (find_channel_steps(context, operator, scale), float(operator.input.scale)))


@dataclass(frozen=True)
class _Whole:
    """Quantization of the bias to integers by the quantizing operators, but in float64 for real numbers."""

    may_narrow: ClassVar[bool] = True

    def __call__(self, real: Tensor, steps: Any) -> Tensor:
        x, limits = real.to(torch.float32), (INT32_MIN, INT32_MAX, torch.int32)
        made: Tensor
        if isinstance(steps, float):
            made = decomposed.quantize_per_tensor(x, steps, 0, *limits)
        else:
            made = decomposed.quantize_per_channel(x, steps, torch.zeros(len(x), dtype=torch.int64), 0, *limits)
        return made
