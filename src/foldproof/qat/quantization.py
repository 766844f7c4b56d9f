"""Quantization in a graph: scale, zero point and limits of an operator, and of a quantize-dequantize pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from foldproof.graph.nodes import arguments, operator_of
from foldproof.torch_internals import quantized_operators

decomposed = quantized_operators()

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

QUANTIZE = {
    decomposed.quantize_per_tensor.default,
    decomposed.quantize_per_tensor.tensor,
    decomposed.quantize_per_channel.default,
}
DEQUANTIZE = {
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_channel.default,
}
PER_CHANNEL = {decomposed.quantize_per_channel.default, decomposed.dequantize_per_channel.default}


@dataclass(frozen=True)
class Quantization:
    """A quantize-dequantize pair with one scale for the whole tensor."""

    quantize: Node
    dequantize: Node
    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    @staticmethod
    def of(quantize: Node) -> Quantization | None:
        """Read the pair that begins here; None unless its parameters are equal numbers and it has no other readers."""
        readers = list(quantize.users)
        if operator_of(quantize) is not decomposed.quantize_per_tensor.default or len(readers) != 1:
            return None
        if operator_of(readers[0]) is not decomposed.dequantize_per_tensor.default:
            return None
        first, second = arguments(quantize), arguments(readers[0])
        names = ("scale", "zero_point", "quant_min", "quant_max", "dtype")
        if [first[n] for n in names] != [second[n] for n in names]:
            return None
        return Quantization(quantize, readers[0], *(first[n] for n in names))

    @property
    def operand(self) -> Node:
        """Quantized value."""
        (operand,) = self.quantize.all_input_nodes
        return operand

    @property
    def low(self) -> float:
        """Least number that passes unclipped."""
        return self.scale * (self.quant_min - self.zero_point)

    @property
    def high(self) -> float:
        return self.scale * (self.quant_max - self.zero_point)


@dataclass(frozen=True)
class Dequantized:
    """A dequantized operand: ``node`` is the dequantization, ``values`` the integers."""

    node: Node
    values: Node
    scale: Any
    zero_point: Any
    axis: int | None
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    @staticmethod
    def of(node: Any) -> Dequantized | None:
        if not isinstance(node, Node) or operator_of(node) not in DEQUANTIZE:
            return None
        given = arguments(node)
        channels = operator_of(node) in PER_CHANNEL
        return Dequantized(
            node,
            given["input"],
            given["scales" if channels else "scale"],
            given["zero_points" if channels else "zero_point"],
            given["axis"] if channels else None,
            given["quant_min"],
            given["quant_max"],
            given["dtype"],
        )

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest possible integer: dequantization does not enforce its limits."""
        if operator_of(self.values) in QUANTIZE:
            given = arguments(self.values)
            return given["quant_min"], given["quant_max"]
        bits = torch.iinfo(self.dtype)
        return bits.min, bits.max
