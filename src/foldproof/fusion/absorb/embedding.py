"""Tables absorb affines of their entries."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.rule import (
    NewConstants,
    install_arguments,
    move_bias,
    remake,
    require_axes,
    require_no_shift,
)
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import arguments, is_getitem, kind_of, operator_node, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of


class Embedding:
    """scale·E[i] + shift = (scale·E + shift)[i] along the last axis."""

    id = "embedding"
    fires: tuple[Fires, ...] = examples.embedding_fires
    declines: tuple[Declines, ...] = examples.embedding_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return kind_of(node) == "embedding"

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        given = arguments(node)
        table = constants.expression(given["weight"], f"the table of {node.name}")
        axis = affine.channels.dim() - 1
        require_axes(node, affine, {axis}, "output")
        scale, shift = affine.vectors(axis, value_of(given["weight"]).shape[1])
        return remake(given["weight"], "weight", move_bias(table, scale, shift), constants)

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        raise CannotFold(f"{node.name} ({short_name(node)}) reads it as its table")

    install = staticmethod(install_arguments)


_MAX = 2


class EmbeddingBag:
    """scale·Σ E[i] = Σ (scale·E)[i] along the last axis, for the mean and weighted sums as well.

    Shifts are declined: a sum would add a shift several times, and an empty bag, which is 0 for any table, never.
    """

    id = "embedding-bag"
    fires: tuple[Fires, ...] = examples.embedding_bag_fires
    declines: tuple[Declines, ...] = examples.embedding_bag_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return is_getitem(node) and node.args[1] in (0,) and "embedding_bag" in kind_of(operator_node(node))

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        call = operator_node(node)
        given = arguments(call)
        if given["mode"] == _MAX:
            raise CannotFold(f"{call.name} ({short_name(call)}) takes the largest, which a negative scale would change")
        require_axes(call, affine, {1}, "output")
        require_no_shift(call, affine)
        table = constants.expression(given["weight"], f"the table of {call.name}")
        scale, _ = affine.vectors(1, value_of(given["weight"]).shape[1])
        return remake(given["weight"], "weight", move_bias(table, scale, None), constants)

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        raise CannotFold(f"{node.name} ({short_name(node)}) reads it as its table")

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        install_arguments(operator_node(node), new)
