"""Products with a constant matrix absorb affines of their output features, and of their input features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

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
    require_no_shift,
)
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.motion.selection import Selection
from foldproof.graph.nodes import arguments, aten, is_edge, kind_of, set_operator
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import product, reshaped, total


class Linear:
    """scale·(x Wᵀ + b) + shift = x (scale·W)ᵀ + (scale·b + shift) along the last axis of the output, and
    (scale·x + shift) Wᵀ + b = x (W·scale)ᵀ + (b + W shift) along the last axis of the input.

    W is (C_out, C_in): an output scale is along its axis 0, an input scale along its axis 1. The last axis is axis 1
    for 2-D tensors only.
    """

    id = "linear"
    fires: tuple[Fires, ...] = examples.linear_fires
    declines: tuple[Declines, ...] = examples.linear_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return kind_of(node) == "linear"

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        weight, bias = self._operands(node, constants)
        scale, shift = self._vectors(node, affine, 0, "output")
        scaled = None if scale is None else Expression(scale_rows, (weight, scale), rowwise=True)
        return self._remake(node, scaled, move_bias(bias, scale, shift), constants)

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        require_input(node, operand, "input")
        weight, bias = self._operands(node, constants)
        scale, shift = self._vectors(node, affine, 1, "input")
        scaled = None if scale is None else Expression(scale_columns, (weight, scale))
        moved = None if shift is None else total(bias, Expression(applied, (weight, shift)))
        return self._remake(node, scaled, moved, constants)

    install = staticmethod(install_arguments)

    def _operands(self, node: Node, constants: Constants) -> tuple[Operand, Operand]:
        given = arguments(node)
        weight = constants.expression(given["weight"], f"the weight of {node.name}")
        if value_of(given["weight"]).dim() != 2:
            raise CannotFold(f"the weight of {node.name} is a vector, so its output has no channels")
        return weight, constants.optional(given["bias"], f"the bias of {node.name}")

    def _vectors(self, node: Node, affine: Affine, side: int, where: str) -> tuple[Operand, Operand]:
        axis = affine.channels.dim() - 1
        require_axes(node, affine, {axis}, where)
        return affine.vectors(axis, value_of(arguments(node)["weight"]).shape[side])

    def _remake(self, node: Node, weight: Operand, bias: Operand, constants: Constants) -> NewConstants:
        given = arguments(node)
        old = given["weight"]
        new_bias = remake_bias(node, given["bias"], old, "bias", bias, constants)
        return (*remake(old, "weight", weight, constants), *new_bias)


class MatrixProduct:
    """scale·(β·b + α·x M) + shift = (scale·β·b + shift) + α·x (M·scale) along the last axis of M and of the output, and
    β·b + α·(scale·x + shift) M = (β·b + α·shift M) + α·x (scale·M) along the last axis of x.

    For addmm and baddbmm, and for mm, bmm and matmul, which have no bias: to take a shift, mm becomes addmm, bmm
    becomes baddbmm, and matmul becomes linear. M is a constant; a transposed view of it stays a view. A constant
    *first* factor absorbs scales only, along the second to last axis: scale·(M x) = (scale·M) x and
    M (scale·x) = (M·scale) x.
    """

    id = "matrix product"
    factors: ClassVar[dict[str, tuple[str, str]]] = {
        "addmm": ("mat1", "mat2"),
        "baddbmm": ("batch1", "batch2"),
        "mm": ("self", "mat2"),
        "bmm": ("self", "mat2"),
        "matmul": ("self", "other"),
    }
    fires: tuple[Fires, ...] = examples.matrix_product_fires
    declines: tuple[Declines, ...] = examples.matrix_product_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return kind_of(node) in self.factors and sum(map(constants.holds, self._factors(node))) == 1

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        matrix = _Matrix(node, self._factors(node), affine, constants)
        channel_axis = -2 if matrix.is_left else -1
        scale, shift = matrix.tensors(affine, channel_axis, channel_axis, "output")
        bias, factor = self._bias(node, constants)
        return self._remake(node, matrix, scale, move_bias(bias, scale, shift, factor), constants)

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        matrix = _Matrix(node, self._factors(node), affine, constants)
        require_input(node, operand, self.factors[kind_of(node)][1 if matrix.is_left else 0])
        channel_axis = -2 if matrix.is_left else -1
        scale, shift = matrix.tensors(affine, channel_axis, -1 if matrix.is_left else -2, "input")
        moved = None
        if shift is not None:
            bias, factor = self._bias(node, constants)
            alpha = arguments(node).get("alpha", 1)
            moved = move_bias(bias, None, Expression(applied_before, (matrix.expression, shift, alpha)), factor)
        return self._remake(node, matrix, scale, moved, constants)

    def _remake(self, node: Node, matrix: _Matrix, scale: Operand, bias: Operand, constants: Constants) -> NewConstants:
        kind = kind_of(node)
        batched = (kind == "matmul" and matrix.value.dim() != 2) or (kind == "bmm" and is_edge(node))
        if bias is not None and (matrix.is_left or batched):  # edge programs have no baddbmm
            raise CannotFold(f"{node.name} ({kind}) has no bias that could take the shift")
        if bias is not None and kind == "matmul":
            as_linear = Expression(transpose, (product(matrix.expression, scale),))
            new_weight = remake(matrix.seen, "weight", as_linear, constants)
        else:
            role = self.factors[kind][0 if matrix.is_left else 1]
            new_weight = remake(matrix.stored, role, matrix.scaled, constants, matrix.views)
        given = self._given_bias(node)
        if kind in ("addmm", "mm", "matmul") and not (isinstance(given, Node) and value_of(given).dim() > 1):
            bias = reshaped(bias, (-1,))
        return (*new_weight, *remake_bias(node, given, matrix.stored, "bias", bias, constants))

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        kind = kind_of(node)
        names = self.factors[kind]
        factors = list(self._factors(node))
        for i, name in enumerate(names):
            factors[i] = new.get(name, factors[i])
        alpha = arguments(node).get("alpha", 1)
        if "bias" not in new:
            install_arguments(node, dict(zip(names, factors, strict=True)))
        elif kind == "matmul":
            set_operator(node, aten.linear.default)
            node.args, node.kwargs = (factors[0], new["weight"], new["bias"]), {}
        else:
            set_operator(node, aten.baddbmm.default if kind in ("bmm", "baddbmm") else aten.addmm.default)
            node.args, node.kwargs = (new["bias"], *factors), {} if alpha == 1 else {"alpha": alpha}

    def _factors(self, node: Node) -> tuple[Node, Node]:
        given = arguments(node)
        first, second = self.factors[kind_of(node)]
        return given[first], given[second]

    def _given_bias(self, node: Node) -> object:
        return arguments(node)["self"] if "beta" in arguments(node) else None

    def _bias(self, node: Node, constants: Constants) -> tuple[Operand, float]:
        given = self._given_bias(node)
        return constants.optional(given, f"the bias of {node.name}"), arguments(node).get("beta", 1)


class _Matrix:
    """The constant factor of a product: as the product reads it, and as it is stored, perhaps behind views."""

    def __init__(self, node: Node, factors: tuple[Node, Node], affine: Affine, constants: Constants) -> None:
        self.node, self.constants = node, constants
        self.is_left = constants.holds(factors[0])
        self.seen = self.stored = factors[0 if self.is_left else 1]
        self.views: tuple[Node, ...] = ()
        self.value = value_of(self.seen)
        what = f"the {'first' if self.is_left else 'second'} factor of {node.name}"
        self.expression = constants.expression(self.seen, what)
        self.scaled: Operand = None
        """New value to store, set by `tensors`; None if the scale changes nothing."""
        if self.value.dim() < 2 or affine.channels.dim() < 2:
            raise CannotFold(f"a factor of {node.name} is a vector, so its output has no channels")

    def tensors(self, affine: Affine, axis: int, matrix_axis: int, where: str) -> tuple[Operand, Operand]:
        """Return scale and shift that broadcast with the matrix; ``axis`` of the value is its ``matrix_axis``."""
        rank = affine.channels.dim()
        batch = {rank - i for i in range(3, self.value.dim() + 1) if self.value.shape[-i] != 1}
        require_axes(self.node, affine, {rank + axis, *batch}, where)
        channels = affine.channels if axis == matrix_axis else affine.channels.transpose(-1, -2)
        channels = channels.reshape(channels.shape[-min(rank, self.value.dim()) :])
        if affine.scale is not None:
            self._scale(Affine(channels, affine.count, affine.scale, None))
        return Affine(channels, affine.count, affine.scale, affine.shift).tensors()

    def _scale(self, affine: Affine) -> None:
        """Scale the stored constant, so that its views can stay; if that is impossible, scale the viewed one."""
        views = list_views(self.seen, self.constants)
        missing = self.value.dim() - affine.channels.dim()
        moved = affine.on(affine.channels.reshape([1] * missing + list(affine.channels.shape)))
        try:
            for view in views:
                moved = Selection().up(view, moved, self.constants, 0)[view.all_input_nodes[0]]
            self.views = tuple(views)
        except CannotFold:
            moved = affine
        self.stored = self.views[-1].all_input_nodes[0] if self.views else self.seen
        scale, _ = moved.tensors()
        self.scaled = product(self.constants.expression(self.stored, f"a factor of {self.node.name}"), scale)


def list_views(node: Node, constants: Constants) -> list[Node]:
    """List the operators that only arrange the elements of a constant, from ``node`` up to the one that reads it."""
    found: list[Node] = []
    while node not in constants.names and Selection().takes(node) and len(node.all_input_nodes) == 1:
        found.append(node)
        node = node.all_input_nodes[0]
    return found if node in constants.names else []


class Einsum:
    """scale·einsum(…, x, W) = einsum(…, x, scale·W) along output axes that W has, and einsum(…, scale·x, W) =
    einsum(…, x, scale·W) along axes of x that W has. There is no bias, so a shift is declined.
    """

    id = "einsum"
    fires: tuple[Fires, ...] = examples.einsum_fires
    declines: tuple[Declines, ...] = examples.einsum_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        if kind_of(node) != "einsum" or "..." in str(arguments(node)["equation"]) or "->" not in str(node.args[0]):
            return False
        operands = arguments(node)["tensors"]
        return len(operands) == 2 and sum(map(constants.holds, operands)) == 1

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        equation = str(arguments(node)["equation"]).replace(" ", "")
        return self._absorb(node, affine, equation.split("->")[1], constants, "output")

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        terms = str(arguments(node)["equation"]).replace(" ", "").split("->")[0].split(",")
        at = arguments(node)["tensors"].index(operand)
        return self._absorb(node, affine, terms[at], constants, "input")

    def _absorb(self, node: Node, affine: Affine, letters: str, constants: Constants, where: str) -> NewConstants:
        require_no_shift(node, affine)
        operands = arguments(node)["tensors"]
        at = next(i for i, operand in enumerate(operands) if constants.holds(operand))
        weight = operands[at]
        terms = str(arguments(node)["equation"]).replace(" ", "").split("->")[0].split(",")
        mine = terms[at]
        if len(set(mine)) != len(mine) or len(set(letters)) != len(letters):
            raise CannotFold(f"the equation of {node.name} takes a diagonal")
        require_axes(node, affine, {axis for axis, letter in enumerate(letters) if letter in mine}, where)
        shape = [1] * len(mine)
        for axis, letter in enumerate(letters):
            if letter in mine:
                shape[mine.index(letter)] = affine.channels.shape[axis]
        order = [letters.index(letter) for letter in mine if letter in letters]
        rest = [axis for axis in range(len(letters)) if axis not in order]
        channels = affine.channels.permute([*order, *rest]).reshape(shape)
        scale, _ = affine.on(channels).tensors()
        expression = constants.expression(weight, f"the constant operand of {node.name}")
        return remake(weight, str(at), product(expression, scale), constants)

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        operands = list(arguments(node)["tensors"])
        for role, constant in new.items():
            operands[int(role)] = constant
        node.args = (node.args[0], operands, *node.args[2:])


def scale_rows(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.reshape(-1, 1)


def scale_columns(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale


def applied(weight: Tensor, shift: Tensor) -> Tensor:
    """Multiply the weight by an input ``shift``: (C_out,)."""
    return (weight * shift).sum(-1)


def transpose(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def applied_before(matrix: Tensor, shift: Tensor, alpha: float) -> Tensor:
    """Compute alpha·(shift M) for a shift of shape (…, K, 1): (…, 1, N)."""
    out = (matrix * shift).sum(-2, keepdim=True)
    return out if alpha == 1 else out * alpha
