"""The linear operators of quantized networks: their channels, and how their operands are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from foldproof.fusion.nodes import arguments, aten, is_view
from foldproof.qat.image import Image
from foldproof.qat.quantization import Dequantized

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
OPERATORS = CONVOLUTIONS | TRANSPOSED | {aten.linear.default, aten.convolution.default}


@dataclass(frozen=True)
class Operator:
    """A convolution, transposed or not, or a linear, with constant weight and bias."""

    node: Node
    weight: Node
    bias: Node | None
    groups: int
    transposed: bool

    @staticmethod
    def of(node: Node, image: Image) -> Operator | None:
        if node.target not in OPERATORS:
            return None
        given = arguments(node)
        if not image.constant(given["weight"]) or not image.constant(given["bias"]):
            return None
        transposed = node.target in TRANSPOSED or bool(given.get("transposed", False))
        return Operator(node, given["weight"], given["bias"], given.get("groups", 1), transposed)

    def axis(self, rank: int, weight_rank: int) -> int:
        """The channels' axis of the output: the last of a linear, the one before the spatial ones of a convolution."""
        return rank - 1 if self.node.target is aten.linear.default else rank - weight_rank + 1

    @property
    def input(self) -> Dequantized | None:
        """The input's quantization, where it has one: with numbers, and perhaps views in between."""
        operand: Any = arguments(self.node)["input"]
        while is_view(operand):
            (operand,) = operand.all_input_nodes
        found = Dequantized.of(operand)
        return found if found is not None and found.axis is None and isinstance(found.scale, float) else None

    @property
    def quantized_weight(self) -> Dequantized | None:
        """The weight's quantization, where it has one: for the whole tensor, or for each output channel."""
        found = Dequantized.of(self.weight)
        if found is None or (found.axis is None and not isinstance(found.scale, float)):
            return None
        return found if found.axis in (None, self.weight_axis) else None

    @property
    def weight_axis(self) -> int:
        """The weight's axis of output channels (of one group, where it is transposed)."""
        return 1 if self.transposed else 0
