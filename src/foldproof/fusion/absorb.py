"""Linear operators that take a channel affine on their output into their own constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.affine import ChannelAffine
from foldproof.fusion.constants import Constants
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.expression import Expression
from foldproof.fusion.nodes import arguments, aten, set_argument, short_name, value_of
from foldproof.fusion.refusal import AxisMismatch, CannotFold


@dataclass(frozen=True)
class NewConstant:
    """A constant that an absorber asks for.

    ``role`` is what it becomes to the operator; it takes its dtype, device and kind (parameter, buffer, constant)
    from the existing constant ``like``, and a name made from ``base``.
    """

    role: str
    base: str
    like: str
    expression: Expression


class Absorber(Protocol):
    """A rule: which operator absorbs, and how. Its docstring states the algebra."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node) -> bool:
        """Is it an operator that this rule knows?"""

    def absorb(self, node: Node, affine: ChannelAffine, constants: Constants) -> tuple[NewConstant, ...]:
        """The constants with which ``node`` computes what the affine makes of its output; else raises CannotFold."""

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        """Gives ``node`` its new constants, by role."""


class Convolution:
    """scale·conv(x; W, b) + shift = conv(x; scale·W, scale·b + shift), along the output channels.

    Convolution is linear in W for any stride, padding, dilation and groups. W is (C_out, C_in/groups, *kernel), so the
    scale is along its axis 0. Output channels are the axis before the spatial ones: axis 1 with a batch, 0 without.
    """

    id = "convolution"
    operators = frozenset(
        {
            aten.conv1d.default,
            aten.conv1d.padding,
            aten.conv2d.default,
            aten.conv2d.padding,
            aten.conv3d.default,
            aten.conv3d.padding,
            aten.convolution.default,
        }
    )
    fires: tuple[Fires, ...] = examples.convolution_fires
    declines: tuple[Declines, ...] = examples.convolution_declines

    def takes(self, node: Node) -> bool:
        return node.target in self.operators and not arguments(node).get("transposed", False)

    def absorb(self, node: Node, affine: ChannelAffine, constants: Constants) -> tuple[NewConstant, ...]:
        given = arguments(node)
        weight = constants.name(given["weight"], f"the weight of {node.name}")
        _require_axis(node, _convolution_axis(node, given["weight"]), affine)
        return (
            NewConstant("weight", weight, weight, Expression(scale_rows, (weight, affine.scale), rowwise=True)),
            _new_bias(node, given["bias"], weight, affine, constants),
        )

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        set_argument(node, "weight", new["weight"])
        set_argument(node, "bias", new["bias"])


class TransposedConvolution:
    """scale·conv_transpose(x; W, b) + shift = conv_transpose(x; scale·W, scale·b + shift), along the output channels.

    W is (C_in, C_out/groups, *kernel): output channel g·C_out/groups + j is computed from W[i, j] for the input
    channels i of group g, so the scale differs between the groups of axis 0 as well as along axis 1.
    """

    id = "transposed convolution"
    operators = frozenset({aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input})
    fires: tuple[Fires, ...] = examples.transposed_convolution_fires
    declines: tuple[Declines, ...] = examples.transposed_convolution_declines

    def takes(self, node: Node) -> bool:
        if node.target is aten.convolution.default:
            return bool(arguments(node)["transposed"])
        return node.target in self.operators

    def absorb(self, node: Node, affine: ChannelAffine, constants: Constants) -> tuple[NewConstant, ...]:
        given = arguments(node)
        weight = constants.name(given["weight"], f"the weight of {node.name}")
        _require_axis(node, _convolution_axis(node, given["weight"]), affine)
        scaled = Expression(scale_transposed, (weight, affine.scale, given["groups"]))
        return (
            NewConstant("weight", weight, weight, scaled),
            _new_bias(node, given["bias"], weight, affine, constants),
        )

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        set_argument(node, "weight", new["weight"])
        set_argument(node, "bias", new["bias"])


class Linear:
    """scale·(x Wᵀ + b) + shift = x (scale·W)ᵀ + (scale·b + shift), along the last axis of the output.

    W is (C_out, C_in), so the scale is along its axis 0. The last axis is axis 1 only for 2-D inputs.
    """

    id = "linear"
    fires: tuple[Fires, ...] = examples.linear_fires
    declines: tuple[Declines, ...] = examples.linear_declines

    def takes(self, node: Node) -> bool:
        return node.target is aten.linear.default

    def absorb(self, node: Node, affine: ChannelAffine, constants: Constants) -> tuple[NewConstant, ...]:
        given = arguments(node)
        weight = constants.name(given["weight"], f"the weight of {node.name}")
        if value_of(given["weight"]).dim() != 2:
            raise CannotFold(f"the weight of {node.name} is a vector, so its output has no channels")
        _require_axis(node, value_of(node).dim() - 1, affine)
        return (
            NewConstant("weight", weight, weight, Expression(scale_rows, (weight, affine.scale), rowwise=True)),
            _new_bias(node, given["bias"], weight, affine, constants),
        )

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        set_argument(node, "weight", new["weight"])
        set_argument(node, "bias", new["bias"])


class MatrixProduct:
    """scale·(β·b + α·x M) + shift = (scale·β·b + shift) + α·x (scale·M), along axis 1 of M and of the output.

    What decompositions make of a linear operator: addmm, or mm where it has no bias; mm becomes addmm. M is a constant,
    or one seen through a transposition, which stays: M = Wᵀ scaled along axis 1 is W scaled along axis 0.
    """

    id = "matrix product"
    fires: tuple[Fires, ...] = examples.matrix_product_fires
    declines: tuple[Declines, ...] = examples.matrix_product_declines

    def takes(self, node: Node) -> bool:
        return node.target in (aten.addmm.default, aten.mm.default)

    def absorb(self, node: Node, affine: ChannelAffine, constants: Constants) -> tuple[NewConstant, ...]:
        given = arguments(node)
        matrix = given["mat2"]
        transposed = _is_transposition(matrix)
        if transposed:
            matrix = arguments(matrix)["self"]
        weight = constants.name(matrix, f"the second factor of {node.name}")
        _require_axis(node, 1, affine)
        scale = scale_rows if transposed else scale_columns
        bias, factor = (given["self"], given["beta"]) if node.target is aten.addmm.default else (None, 1)
        return (
            NewConstant("weight", weight, weight, Expression(scale, (weight, affine.scale), rowwise=transposed)),
            _new_bias(node, bias, weight, affine, constants, factor),
        )

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        given = arguments(node)
        matrix = new["weight"]
        if _is_transposition(given["mat2"]):
            # The old one may have other readers.
            with node.graph.inserting_before(node):
                matrix = node.graph.node_copy(given["mat2"], lambda _: new["weight"])
        factor = given["self"] if node.target is aten.mm.default else given["mat1"]
        alpha = given.get("alpha", 1)
        node.target = aten.addmm.default
        node.args = (new["bias"], factor, matrix)
        node.kwargs = {} if alpha == 1 else {"alpha": alpha}


ABSORBERS: tuple[Absorber, ...] = (Convolution(), TransposedConvolution(), Linear(), MatrixProduct())
"""Every rule that absorbs an affine."""


def scale_rows(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def scale_columns(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale


def scale_transposed(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel)
    return (grouped * scale.reshape(groups, 1, outputs, *[1] * len(kernel))).reshape(weight.shape)


def scale_and_shift(bias: Tensor | None, scale: Tensor, shift: Tensor, factor: float) -> Tensor:
    if bias is None:
        return shift
    return (bias if factor == 1 else bias * factor) * scale + shift


def _new_bias(
    node: Node, bias: object, weight: str, affine: ChannelAffine, constants: Constants, factor: float = 1
) -> NewConstant:
    name = constants.optional(bias, f"the bias of {node.name}")
    base = name or (f"{weight.removesuffix('weight')}bias" if weight.endswith("weight") else f"{weight}_bias")
    expression = Expression(scale_and_shift, (name, affine.scale, affine.shift, factor))
    return NewConstant("bias", base, name or weight, expression)


def _convolution_axis(node: Node, weight: Node) -> int:
    spatial = value_of(weight).dim() - 2
    return value_of(node).dim() - spatial - 1


def _is_transposition(node: object) -> bool:
    if not isinstance(node, Node):
        return False
    if node.target is aten.permute.default:
        dims = arguments(node)["dims"]
        return [d % 2 for d in dims] == [1, 0]
    return node.target is aten.t.default or (
        node.target is aten.transpose.int and {arguments(node)[d] % 2 for d in ("dim0", "dim1")} == {0, 1}
    )


def _require_axis(node: Node, axis: int, affine: ChannelAffine) -> None:
    if axis != affine.axis:
        rank = value_of(node).dim()
        raise AxisMismatch(
            f"the output of {node.name} is {rank}-D: {short_name(node)} has its channels on axis {axis} and the affine"
            f" is along axis {affine.axis}, so no weight can absorb it; if the channels were meant, transpose before it"
        )
