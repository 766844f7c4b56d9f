"""An edit: one node gets new constants, each an expression over the constants of the program."""

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

    ``role`` is its part in the operator; it takes its device and kind (parameter, buffer, constant) from the existing
    constant ``like``, and a name made from ``base``. The operator reads it through copies of ``views``, the last of
    which reads the constant itself. It takes the place of ``like``, and of ``others``.
    """

    role: str
    base: str
    like: str
    dtype: torch.dtype
    expression: Operand
    views: tuple[Node, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedConstant:
    """A new constant that the program doesn't hold yet.

    ``expression`` is over the constants of the original program, ``tensor`` its value, evaluated in float64 and rounded
    once; ``like`` is the constant whose kind it takes.
    """

    name: str
    like: str
    expression: Expression
    tensor: Tensor


@dataclass(frozen=True)
class Edit:
    """A change of one node: new constants, put in place by ``install``, which takes the nodes of these by role."""

    rule: str
    node: Node
    wanted: tuple[NewConstant, ...]
    install: Callable[[Node, Mapping[str, Node]], None]

    def apply(self, node: Node, constants: Mapping[str, Node]) -> None:
        """Carry the edit out on its node or on a copy of that, in whose graph the constants are."""
        found = dict(constants)
        for wanted in self.wanted:
            for view in reversed(wanted.views):
                place = {view.all_input_nodes[0]: found[wanted.role]}
                with node.graph.inserting_before(node):
                    found[wanted.role] = node.graph.node_copy(view, place.__getitem__)
        self.install(node, found)


PlannedEdits = Sequence[tuple[Edit, Mapping[str, PlannedConstant]]]
"""Edits, each with its new constants by role."""
