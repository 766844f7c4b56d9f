"""Edits: a node gets new constants, each an expression over the constants of the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.rewriting.expression import Expression, Operand


@dataclass(frozen=True)
class NewConstant:
    """A constant that an edit asks for.

    ``role`` is its part in the operator. Its device and kind (parameter, buffer, constant) are those of the existing
    constant ``like``, and its name is made from ``base``. The operator reads it through copies of ``views``, the last
    of which reads the constant itself. It replaces ``like`` and ``others``. Only an ``infinite`` one may hold
    infinite numbers, as masks do.
    """

    role: str
    base: str
    like: str
    dtype: torch.dtype
    expression: Operand
    views: tuple[Node, ...] = ()
    others: tuple[str, ...] = ()
    infinite: bool = False


@dataclass(frozen=True)
class PlannedConstant:
    """A new constant that is not in the program yet.

    ``expression`` is over the constants of the original program, and ``tensor`` is its value, computed in float64 and
    rounded once; ``like`` is a constant of the same kind.
    """

    name: str
    like: str
    expression: Expression
    tensor: Tensor


@dataclass(frozen=True)
class Edit:
    """A change of one node: new constants, which ``install`` puts in place, given their nodes by role."""

    rule: str
    node: Node
    wanted: tuple[NewConstant, ...]
    install: Callable[[Node, Mapping[str, Node]], None]

    def apply(self, node: Node, constants: Mapping[str, Node]) -> list[Node]:
        """Apply the edit to its node, or to a copy of it in the graph of these constants; return the new views."""
        found = dict(constants)
        made = []
        for wanted in self.wanted:
            for view in reversed(wanted.views):
                place = {view.all_input_nodes[0]: found[wanted.role]}
                with node.graph.inserting_before(node):
                    found[wanted.role] = node.graph.node_copy(view, place.__getitem__)
                made.append(found[wanted.role])
        self.install(node, found)
        return made


PlannedEdits = Sequence[tuple[Edit, Mapping[str, PlannedConstant]]]
"""Edits, each with its new constants by role."""
