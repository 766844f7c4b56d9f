"""Normalisations absorb affines of their output into their own scale and shift."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.rule import NewConstants, install_arguments, move_bias, remake, require_axes
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import arguments, is_getitem, kind_of, operator_node, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import reshaped, scaled


class OwnAffine:
    """scale·(γ·n(x) + β) + shift = (scale·γ)·n(x) + (scale·β + shift), for the normalisations n that have γ and β.

    layer_norm along the normalised axes, group_norm along axis 1, rms_norm (γ only, so no shift).
    """

    id = "own affine"
    kinds = frozenset({"layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"})
    fires: tuple[Fires, ...] = examples.own_affine_fires
    declines: tuple[Declines, ...] = examples.own_affine_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        target = node.args[0] if is_getitem(node) and node.args[1] == 0 else node
        return isinstance(target, Node) and kind_of(target) in self.kinds

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        target = operator_node(node)
        given = arguments(target)
        weight = constants.optional(given["weight"], f"the weight of {target.name}")
        if weight is None:
            raise CannotFold(f"{target.name} ({short_name(target)}) has no weight that could take the scale")
        bias = constants.optional(given.get("bias"), f"the bias of {target.name}")
        if affine.shift is not None and bias is None:
            raise CannotFold(f"{target.name} ({short_name(target)}) has no bias that could take the shift")
        shape = tuple(value_of(given["weight"]).shape)
        rank = affine.channels.dim()
        axes = {1} if "group" in kind_of(target) else set(range(rank - len(shape), rank))
        require_axes(target, affine, axes, "output")
        places = [1] * rank
        for axis, size in zip(sorted(axes), shape, strict=True):
            places[axis] = size
        scale, shift = (reshaped(x, shape) for x in affine.over(places))
        new = remake(given["weight"], "weight", scaled(scale, weight), constants)
        if bias is None:
            return new
        return (*new, *remake(given["bias"], "bias", move_bias(bias, scale, shift), constants))

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        raise CannotFold(f"{node.name} ({short_name(node)}) computes its statistics from it")

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        install_arguments(operator_node(node), new)
