"""Changing a program: new constants come in, nodes that nothing reads go."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from foldproof.errors import brief
from foldproof.fusion.absorb import NewConstant
from foldproof.fusion.constants import Constants
from foldproof.fusion.expression import Expression, as_expression, evaluate, rounded
from foldproof.fusion.refusal import CannotFold
from foldproof.log import log_caught


class Host(Protocol):
    """A form of program that can be changed: where its constants live, and what it becomes."""

    graph: Graph
    constants: Constants
    subgraphs: nn.Module

    def is_free(self, name: str) -> bool:
        """May a new constant have this name?"""

    def insert(self, name: str, tensor: Tensor, like: Node) -> Node:
        """A node that stands for a new constant, of the kind of ``like``, which does."""

    def finish(self, erased: Mapping[str, str]) -> Any:
        """The changed program; ``erased`` maps names of nodes that are gone to those that took their place."""


@dataclass(frozen=True)
class Draft:
    """A new constant that the program doesn't hold yet.

    ``expression`` is over the constants of the original program, ``tensor`` its value, evaluated in float64 and rounded
    once; ``like`` is the constant whose kind it takes.
    """

    name: str
    like: str
    expression: Expression
    tensor: Tensor


class Surgery:
    """The changes that are made to one program."""

    def __init__(self, host: Host) -> None:
        self.host, self.graph, self.constants = host, host.graph, host.constants
        self._drafts: dict[tuple[Expression, torch.dtype], Draft] = {}
        self._nodes = {name: node for node, name in host.constants.names.items()}
        self._erased: dict[str, str] = {}
        self._numbers = Counter[str]()
        self._places = {node: place for place, node in enumerate(host.graph.nodes)}

    def order(self, node: Node) -> int:
        """Where a node stands in the graph; constants stand at the beginning."""
        return self._places.get(node, -1)

    def draft(self, wanted: NewConstant) -> Draft:
        """A new constant, evaluated; one that an equal expression made before where there is one.

        Raises:
            CannotFold: it can't be computed, or isn't finite in its dtype.
        """
        expression = as_expression(self.constants.original(wanted.expression))
        known = self._drafts.get((expression, wanted.dtype))
        if known is not None:
            return known
        model = self.constants.tensors[wanted.like]
        with torch.no_grad():
            try:
                tensor = rounded(expression, self.constants.originals, wanted.dtype).to(model.device)
            except Exception as error:
                log_caught(error, f"computing the folded {wanted.base}")
                raise CannotFold(f"the folded {wanted.base} can't be computed: {brief(error)}") from error
            if not is_finite(tensor):
                dtype = str(wanted.dtype).removeprefix("torch.")
                raise CannotFold(
                    f"the folded {wanted.base} would not be finite in {dtype}: a variance + eps is 0, or a scale is too"
                    " large"
                )
        if isinstance(model, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=model.requires_grad)
        return Draft(self._free_name(wanted.base), wanted.like, expression, tensor)

    def add(self, draft: Draft) -> Node:
        """The node of a drafted constant, which is added to the program if it isn't there yet."""
        if draft.name in self._nodes:
            return self._nodes[draft.name]
        like = self._nodes[draft.like]
        node = self.host.insert(draft.name, draft.tensor, like)
        tensor = draft.tensor
        with like.meta["val"].fake_mode:
            node.meta["val"] = torch.empty_strided(
                tensor.shape,
                tensor.stride(),
                dtype=tensor.dtype,
                device=tensor.device,
                requires_grad=tensor.requires_grad,
            )
        self._nodes[draft.name] = node
        self._drafts[draft.expression, tensor.dtype] = draft
        self.constants.add(node, draft.name, tensor, draft.expression)
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Makes all readers of ``old`` read ``new``, and erases ``old`` and what only it needed."""
        old.replace_all_uses_with(new)
        self._erased[old.name] = new.name
        self.erase_unread(old)

    def erase_unread(self, node: Node) -> None:
        """Erases a call that nothing reads, and then the calls that only it read."""
        pending = dict.fromkeys([node])
        while pending:
            node, _ = pending.popitem()
            if node.op == "call_function" and not (node.users or node.is_impure() or node._erased):
                pending |= dict.fromkeys(node.all_input_nodes)
                self.graph.erase_node(node)

    def derive(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The constants that the new program has and the original has not, computed from the original's."""
        read = {name: e for name, e in self.constants.derived.items() if self._nodes[name].users}
        return evaluate(read, parameters.__getitem__)

    def finish(self) -> Any:
        """The changed program."""
        return self.host.finish(self._erased)

    def _free_name(self, base: str) -> str:
        """``<base>_folded``, numbered where that is taken, by a constant or by the name of a node."""
        base = re.sub(r"_folded(_\d+)?$", "", base)  # of a constant that was folded before
        while True:
            number = self._numbers[base]
            self._numbers[base] += 1
            name = f"{base}_folded_{number}" if number else f"{base}_folded"
            if self.host.is_free(name):
                return name


def is_finite(tensor: Tensor) -> bool:
    """Is every element a number, neither infinite nor nan?"""
    # Ten times as fast as isfinite().all(), which makes copies; nan goes through.
    return tensor.numel() == 0 or all(math.isfinite(bound.item()) for bound in (tensor.amin(), tensor.amax()))
