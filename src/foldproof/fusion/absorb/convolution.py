"""Convolutions absorb affines of their output channels, and of their input channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.rule import (
    NewConstants,
    install_arguments,
    move_bias,
    remake,
    remake_bias,
    require_axes,
    require_input,
)
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import arguments, kind_of, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import total


class Convolution:
    """scale·conv(x; W, b) + shift = conv(x; scale·W, scale·b + shift) along the output channels, and
    conv(scale·x + shift; W, b) = conv(x; scale·W, b + Σ W·shift) along the input channels.

    Convolution is linear in W for any stride, padding, dilation and groups. W is (C_out, C_in/groups, *kernel), so an
    output scale is along its axis 0, and an input scale along its axis 1, group by group. The channel axis is the one
    before the spatial axes: 1 with a batch, 0 without. Zero padding can't be shifted, so an input shift is declined if
    there is any.
    """

    id = "convolution"
    kinds = frozenset({"conv1d", "conv2d", "conv3d", "convolution"})
    fires: tuple[Fires, ...] = examples.convolution_fires
    declines: tuple[Declines, ...] = examples.convolution_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return kind_of(node) in self.kinds and not arguments(node).get("transposed", False)

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        this = _Operands(node, constants)
        scale, shift = this.vectors(affine, this.shape[0], "output")
        return this.remake(_scale_output(this.weight, scale), move_bias(this.bias, scale, shift))

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        require_input(node, operand, "input")
        this = _Operands(node, constants)
        groups = this.given["groups"]
        scale, shift = this.vectors(affine, this.shape[1] * groups, "input")
        if shift is not None and this.pads():
            raise CannotFold(
                f"{node.name} ({short_name(node)}) pads its input with zeros, which a shift would change",
                f"pad before it, with the value of each channel that it makes 0, instead of in {node.name}",
            )
        weight = None if scale is None else Expression(scale_inputs, (this.weight, scale, groups))
        bias = None if shift is None else total(this.bias, Expression(convolve_constant, (this.weight, shift, groups)))
        return this.remake(weight, bias)

    install = staticmethod(install_arguments)


class TransposedConvolution:
    """scale·conv_transpose(x; W, b) + shift = conv_transpose(x; scale·W, scale·b + shift) along the output channels,
    and conv_transpose(scale·x; W, b) = conv_transpose(x; scale·W, b) along the input channels.

    W is (C_in, C_out/groups, *kernel): output channel g·C_out/groups + j is computed from W[i, j] for the input
    channels i of group g, so an output scale differs between the groups of axis 0 as well as along axis 1. An input
    shift reaches fewer taps at the border than inside, and is declined.
    """

    id = "transposed convolution"
    kinds = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
    fires: tuple[Fires, ...] = examples.transposed_convolution_fires
    declines: tuple[Declines, ...] = examples.transposed_convolution_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        if kind_of(node) == "convolution":
            return bool(arguments(node)["transposed"])
        return kind_of(node) in self.kinds

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        this = _Operands(node, constants)
        groups = this.given["groups"]
        scale, shift = this.vectors(affine, this.shape[1] * groups, "output")
        weight = None if scale is None else Expression(scale_transposed, (this.weight, scale, groups))
        return this.remake(weight, move_bias(this.bias, scale, shift))

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        require_input(node, operand, "input")
        this = _Operands(node, constants)
        scale, shift = this.vectors(affine, this.shape[0], "input")
        if shift is not None:
            raise CannotFold(f"a shift before {node.name} ({short_name(node)}) reaches fewer taps at the border")
        return this.remake(_scale_output(this.weight, scale), None)

    install = staticmethod(install_arguments)


class _Operands:
    """The constant operands of a convolution."""

    def __init__(self, node: Node, constants: Constants) -> None:
        self.node, self.constants = node, constants
        self.given: dict[str, Any] = arguments(node)
        self.weight = constants.expression(self.given["weight"], f"the weight of {node.name}")
        self.bias = constants.optional(self.given["bias"], f"the bias of {node.name}")
        self.shape = value_of(self.given["weight"]).shape

    def vectors(self, affine: Affine, channels: int, where: str) -> tuple[Operand, Operand]:
        axis = affine.channels.dim() - (len(self.shape) - 2) - 1
        require_axes(self.node, affine, {axis}, where)
        return affine.vectors(axis, channels)

    def remake(self, weight: Operand, bias: Operand) -> NewConstants:
        old = self.given["weight"]
        new_bias = remake_bias(self.node, self.given["bias"], old, "bias", bias, self.constants)
        return (*remake(old, "weight", weight, self.constants), *new_bias)

    def pads(self) -> bool:
        padding = self.given["padding"]
        if isinstance(padding, str):
            return padding == "same" and any(size > 1 for size in self.shape[2:])
        return any(p != 0 for p in (padding if isinstance(padding, (list, tuple)) else [padding]))


def _scale_output(weight: Operand, scale: Operand) -> Operand:
    return None if scale is None else Expression(scale_rows, (weight, scale), rowwise=True)


def scale_rows(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def scale_inputs(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(groups, outputs // groups, inputs, *kernel)
    return (grouped * scale.reshape(groups, 1, inputs, *[1] * len(kernel))).reshape(weight.shape)


def scale_transposed(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel)
    return (grouped * scale.reshape(groups, 1, outputs, *[1] * len(kernel))).reshape(weight.shape)


def convolve_constant(weight: Tensor, shift: Tensor, groups: int) -> Tensor:
    """Convolve an input that is constant in space, with value ``shift`` in each channel: (C_out,)."""
    outputs, inputs = weight.shape[:2]
    taps = weight.reshape(groups, outputs // groups, inputs, -1).sum(-1)
    return (taps * shift.reshape(groups, 1, inputs)).sum(-1).reshape(outputs)
