"""Operators on elements: rectifiers, sums and products."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.motion.rule import Affines, find_sizes, require_no_negative
from foldproof.graph.nodes import arguments, kind_of, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold, next_training
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import number, scaled


class Rectifier:
    """relu(scale·x) = scale·relu(x), if no scale is negative; the same holds for leaky_relu."""

    id = "rectifier"
    conditional = True
    kinds = frozenset({"relu", "leaky_relu"})
    fires: tuple[Fires, ...] = examples.rectifier_fires
    declines: tuple[Declines, ...] = examples.rectifier_declines

    def takes(self, node: Node) -> bool:
        return kind_of(node) in self.kinds

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        self._check(node, affine, constants)
        return {node.all_input_nodes[0]: affine}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        [affine] = carried.values()
        self._check(node, affine, constants)
        return affine

    def _check(self, node: Node, affine: Affine, constants: Constants) -> None:
        if affine.shift is not None:
            hint = next_training(f"normalise before {node.name}")
            raise CannotFold(f"a shift does not pass {node.name} ({short_name(node)})", hint)
        require_no_negative(node, affine, constants)


class Negation:
    """scale·(−x) + shift = −(scale·x − shift)."""

    id = "negation"
    conditional = False
    fires: tuple[Fires, ...] = examples.negation_fires
    declines: tuple[Declines, ...] = examples.negation_declines

    def takes(self, node: Node) -> bool:
        return kind_of(node) == "neg"

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        return {node.all_input_nodes[0]: self._reverse(affine)}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        [affine] = carried.values()
        return self._reverse(affine)

    def _reverse(self, affine: Affine) -> Affine:
        shift = None if affine.shift is None else scaled(affine.shift, number(-1))
        return Affine(affine.channels, affine.count, affine.scale, shift)


class Sum:
    """scale·(x + α·y) + shift = (scale·x + shift) + α·(scale·y); one operand takes the shift. Differences are alike."""

    id = "sum"
    conditional = False
    fires: tuple[Fires, ...] = examples.sum_fires
    declines: tuple[Declines, ...] = examples.sum_declines

    def takes(self, node: Node) -> bool:
        return kind_of(node) in ("add", "sub") and all(isinstance(x, Node) for x in _find_operands(node))

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        first, second = _find_operands(node)
        if first is second:
            raise CannotFold(f"{node.name} adds {first.name} to itself")
        scale_only = Affine(affine.channels, affine.count, affine.scale, None)
        given = arguments(node)
        if side and kind_of(node) == "add" and given.get("alpha", 1) == 1:
            first, second = second, first
        return {first: _broadcast(node, first, affine), second: _broadcast(node, second, scale_only)}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        first, second = _find_operands(node)
        a, b = carried.get(first), carried.get(second)
        if first is second:
            raise CannotFold(f"{node.name} adds {first.name} to itself")
        sign = -1.0 if kind_of(node) == "sub" else 1.0
        factor = sign * float(arguments(node).get("alpha", 1))
        found: Affine | None = None
        for affine, times in ((a, 1.0), (b, factor)):
            if affine is None:
                continue
            one = _spread_out(node, affine)
            shift = one.shift if times == 1.0 else scaled(one.shift, number(times))
            one = Affine(one.channels, one.count, one.scale, shift)
            if found is None:
                found = one
            elif (found.scale is None and one.scale is None) or (
                found.scale == one.scale and torch.equal(found.channels, one.channels)
            ):
                both = Affine(one.channels, one.count, None, one.shift)
                only = Affine(found.channels, found.count, None, found.shift).then(both)
                found = Affine(only.channels, only.count, one.scale, only.shift)
            else:
                raise CannotFold(f"the two operands of {node.name} are scaled differently")
        assert found is not None
        if found.scale is not None and (a is None or b is None):
            raise CannotFold(f"only one of the two operands of {node.name} is scaled")
        return found


class Product:
    """scale·(x·y) = (scale·x)·y, if neither is a constant. For matrix products, the scale has to be one number."""

    id = "product"
    conditional = False
    matrix_kinds = frozenset({"matmul", "bmm", "mm"})
    fires: tuple[Fires, ...] = examples.product_fires
    declines: tuple[Declines, ...] = examples.product_declines

    def takes(self, node: Node) -> bool:
        kind = kind_of(node)
        return (kind == "mul" or kind in self.matrix_kinds) and all(isinstance(x, Node) for x in _find_operands(node))

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        self._check(node, affine)
        operand = _find_operands(node)[side]
        if kind_of(node) in self.matrix_kinds:
            return {operand: affine.on(torch.zeros([1] * value_of(operand).dim(), dtype=torch.int64))}
        return {operand: _broadcast(node, operand, affine)}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        if len(carried) != 1:
            raise CannotFold(f"both operands of {node.name} are scaled")
        [affine] = carried.values()
        self._check(node, affine)
        if kind_of(node) in self.matrix_kinds:
            return affine.on(torch.zeros([1] * value_of(node).dim(), dtype=torch.int64))
        return _spread_out(node, affine)

    def _check(self, node: Node, affine: Affine) -> None:
        first, second = _find_operands(node)
        if first is second:
            raise CannotFold(f"{node.name} multiplies {first.name} by itself")
        if affine.shift is not None:
            hint = next_training(f"normalise before {node.name}")
            raise CannotFold(f"a shift does not pass {node.name} ({short_name(node)})", hint)
        if kind_of(node) in self.matrix_kinds and affine.count != 1:
            raise CannotFold(f"only a scale that is one number passes {node.name} ({short_name(node)})")


def _find_operands(node: Node) -> tuple[Any, Any]:
    given = arguments(node)
    names = list(given)[:2]
    return given[names[0]], given[names[1]]


def _broadcast(node: Node, operand: Node, affine: Affine) -> Affine:
    """Return the affine of an operand that is broadcast to the shape of ``node``."""
    shape = find_sizes(operand)
    channels = affine.channels
    for axis in range(channels.dim()):
        size = shape[axis - channels.dim()] if axis >= channels.dim() - len(shape) else 1
        if size == 1 and channels.shape[axis] != 1:
            raise CannotFold(f"{operand.name} is broadcast along the channels by {node.name}")
    return affine.on(channels.reshape(channels.shape[channels.dim() - len(shape) :]))


def _spread_out(node: Node, affine: Affine) -> Affine:
    """Return the affine of an operand on the shape of ``node``, to which it is broadcast."""
    missing = value_of(node).dim() - affine.channels.dim()
    return affine.on(affine.channels.reshape([1] * missing + list(affine.channels.shape)))
