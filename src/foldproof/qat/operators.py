"""The linear operators of quantized networks: their channels, and the quantization of their operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import arguments, kind_of
from foldproof.qat.context import Context
from foldproof.qat.quantization import Dequantized

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
OPERATORS = CONVOLUTIONS | TRANSPOSED | {"linear"}


@dataclass(frozen=True)
class Operator:
    """A convolution, transposed or not, or a linear, with constant weight and bias.

    ``data`` is the operand that is not constant. ``input`` is its quantization, if it has one with numbers as
    parameters, perhaps behind views.
    """

    node: Node
    data: Node
    weight: Node
    bias: Node | None
    groups: int
    transposed: bool
    input: Dequantized | None
    weight_shape: torch.Size
    dtype: torch.dtype
    """Dtype of the weight in the computation."""

    @staticmethod
    def of(node: Node, context: Context) -> Operator | None:
        if kind_of(node) not in OPERATORS:
            return None
        given = arguments(node)
        data, weight, bias = node.args[0], given["weight"], given["bias"]
        if not isinstance(data, Node) or not isinstance(weight, Node):
            return None
        if not context.is_fixed(weight) or not context.is_fixed(bias):
            return None
        transposed = kind_of(node) in TRANSPOSED or bool(given.get("transposed", False))
        shape = context.value(weight).shape
        own = [] if Dequantized.of(weight) is not None else context.origins(weight)
        dtype = context.editor.constants.tensors[own[0]].dtype if own else torch.float32
        groups, given_input = given.get("groups", 1), _find_input(data, context)
        return Operator(node, data, weight, bias, groups, transposed, given_input, shape, dtype)

    def axis(self, rank: int) -> int:
        """Return the channel axis of the output: the last of a linear, the one before the spatial axes of a conv."""
        return rank - 1 if kind_of(self.node) == "linear" else rank - len(self.weight_shape) + 1

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.weight_shape[self.weight_axis] * (self.groups if self.transposed else 1)

    @property
    def weight_axis(self) -> int:
        """Axis of the weight with the output channels (of one group, for a transposed convolution)."""
        return 1 if self.transposed else 0

    @property
    def quantized_weight(self) -> Dequantized | None:
        """Quantization of the weight, if it has one: for the whole tensor, or for each output channel."""
        found = Dequantized.of(self.weight)
        if found is None or (found.axis is None and not isinstance(found.scale, float)):
            return None
        return found if found.axis in (None, self.weight_axis) else None

    def by_channel(self, weight: Tensor) -> Tensor:
        """Move the output channels of a tensor of the weight's shape to the first axis."""
        if not self.transposed:
            return weight
        inputs, outputs, *kernel = weight.shape
        grouped = weight.reshape(self.groups, inputs // self.groups, outputs, *kernel).transpose(1, 2)
        return grouped.reshape(self.channels, inputs // self.groups, *kernel)

    def along_channels(self, vector: Tensor) -> Tensor:
        """Reshape a vector over the output channels to a tensor that broadcasts to the weight's shape.

        For a transposed convolution in groups, it has the shape of the weight except for the kernel axes.
        """
        rank = len(self.weight_shape)
        if not self.transposed:
            return vector.reshape(-1, *[1] * (rank - 1))
        inputs, outputs = self.weight_shape[:2]
        grouped = vector.reshape(self.groups, 1, outputs).expand(self.groups, inputs // self.groups, outputs)
        return grouped.reshape(inputs, outputs, *[1] * (rank - 2))


def _find_input(data: Node, context: Context) -> Dequantized | None:
    operand: Any = data
    while context.is_view(operand):
        operand = next(node for node in operand.all_input_nodes if not context.is_number(node))
    found = Dequantized.of(operand)
    return found if found is not None and found.axis is None and isinstance(found.scale, float) else None
