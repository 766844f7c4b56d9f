"""Tables absorb affines of their entries."""

from __future__ import annotations

from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.rule import NewConstants, install_arguments, moved_bias, remade, require_axes
from foldproof.fusion.affine import Affine
from foldproof.fusion.constants import Constants
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.nodes import arguments, kind_of, short_name, value_of
from foldproof.fusion.refusal import CannotFold


class Embedding:
    """scale·E[i] + shift = (scale·E + shift)[i] along the last axis.

    Of an embedding_bag, whose empty bags are 0 whatever the table holds, it is declined.
    """

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
        return remade(given["weight"], "weight", moved_bias(table, scale, shift), constants)

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        raise CannotFold(f"{node.name} ({short_name(node)}) reads it as its table")

    install = staticmethod(install_arguments)
