"""The linear operators of quantized networks: their channels, and how their operands are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from foldproof.fusion.nodes import arguments, is_view, kind_of
from foldproof.qat.image import Image
from foldproof.qat.quantization import Dequantized

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
OPERATORS = CONVOLUTIONS | TRANSPOSED | {"linear"}


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
        if kind_of(node) not in OPERATORS:
            return None
        given = arguments(node)
        if not image.constant(given["weight"]) or not image.constant(given["bias"]):
            return None
        transposed = kind_of(node) in TRANSPOSED or bool(given.get("transposed", False))
        return Operator(node, given["weight"], given["bias"], given.get("groups", 1), transposed)

    @property
    def data(self) -> Node:
        """The operand that is no constant."""
        operand = self.node.args[0]
        assert isinstance(operand, Node)
        return operand

    def axis(self, rank: int, weight_rank: int) -> int:
        """The channels' axis of the output: the last of a linear, the one before the spatial ones of a convolution."""
        return rank - 1 if kind_of(self.node) == "linear" else rank - weight_rank + 1

    @property
    def input(self) -> Dequantized | None:
        """The input's quantization, where it has one: with numbers, and perhaps views in between."""
        operand: Any = self.data
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
