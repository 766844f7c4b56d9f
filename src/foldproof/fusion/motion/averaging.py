"""Operators that combine elements of one channel: averages, and maxima."""

from __future__ import annotations

import torch
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.motion.rule import (
    Affines,
    find_combined_axes,
    find_sizes,
    require_constant_along,
    require_no_negative,
    run_on,
)
from foldproof.graph.nodes import arguments, is_getitem, kind_of, operator_node
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold, next_training
from foldproof.rewriting.sizes import value_of

_AVERAGES = """
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
AVERAGES = frozenset(_AVERAGES.split())

_MAXIMA = """
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
"""
MAXIMA = frozenset(_MAXIMA.split())


class Averaging:
    """f(scale·x + shift) = scale·f(x) + shift, where f averages elements of one channel with fixed weights.

    For average pooling, means over axes, and linear interpolation. If the weights don't add up to 1 (sums, padding that
    is counted), only f(scale·x) = scale·f(x) holds.
    """

    id = "averaging"
    conditional = False
    pools = AVERAGES
    reductions = frozenset({"mean", "sum"})
    fires: tuple[Fires, ...] = examples.averaging_fires
    declines: tuple[Declines, ...] = examples.averaging_declines

    def takes(self, node: Node) -> bool:
        return kind_of(node) in self.pools or (kind_of(node) in self.reductions and "dim" in arguments(node))

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        [x] = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        self._check_weights(node, affine)
        axes = find_combined_axes(node, x)
        found = _restore_axes(affine, axes, value_of(x).dim())
        require_constant_along(node, found, axes)
        return {x: found}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        [(x, affine)] = carried.items()
        self._check_weights(node, affine)
        axes = find_combined_axes(node, x)
        require_constant_along(node, affine, axes)
        return _drop_axes(affine, axes, value_of(node).dim())

    def _check_weights(self, node: Node, affine: Affine) -> None:
        if affine.shift is None:
            return
        ones = run_on(node, lambda operand: torch.ones(find_sizes(operand), dtype=torch.float64))
        if not torch.allclose(ones, torch.ones_like(ones), rtol=0, atol=1e-6):
            raise CannotFold(
                f"the weights of {node.name} do not add up to 1, so a shift does not pass it",
                next_training(f"normalise before {node.name}; in average pooling, count_include_pad=False would do"),
            )
        is_dynamic = any(isinstance(size, torch.SymInt) for size in value_of(node).shape)
        if arguments(node).get("divisor_override") is not None and is_dynamic:
            raise CannotFold(f"the weights of {node.name} add up to 1 at some sizes only, so a shift does not pass it")


class Maximum:
    """max(scale·xᵢ + shift) = scale·max(xᵢ) + shift, if no scale is negative.

    For max pooling and maxima along axes, of elements of one channel.
    """

    id = "maximum"
    conditional = True
    pools = MAXIMA
    fires: tuple[Fires, ...] = examples.maximum_fires
    declines: tuple[Declines, ...] = examples.maximum_declines

    def takes(self, node: Node) -> bool:
        if is_getitem(node):
            pool, place = node.args
            return isinstance(pool, Node) and kind_of(pool) in self.pools and place in (0,)
        is_one = isinstance(node.meta.get("val"), torch.Tensor)
        return is_one and (kind_of(node) in self.pools or kind_of(node) == "amax")

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        x = operator_node(node).all_input_nodes[0]
        require_no_negative(node, affine, constants)
        axes = find_combined_axes(operator_node(node), x)
        found = _restore_axes(affine, axes, value_of(x).dim())
        require_constant_along(node, found, axes)
        return {x: found}

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        [(x, affine)] = carried.items()
        require_no_negative(node, affine, constants)
        axes = find_combined_axes(operator_node(node), x)
        require_constant_along(node, affine, axes)
        return _drop_axes(affine, axes, value_of(node).dim())


def _restore_axes(affine: Affine, axes: list[int], rank: int) -> Affine:
    """Return the affine of the operand, whose ``axes`` the result may have lost."""
    channels = affine.channels
    if channels.dim() < rank:
        for axis in sorted(axes):
            channels = channels.unsqueeze(axis)
    return affine.on(channels)


def _drop_axes(affine: Affine, axes: list[int], rank: int) -> Affine:
    """Return the affine of the result, which may have lost ``axes``."""
    channels = affine.channels
    if rank < channels.dim():
        for axis in sorted(axes, reverse=True):
            channels = channels.squeeze(axis)
    return affine.on(channels)
