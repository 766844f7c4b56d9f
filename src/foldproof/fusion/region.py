"""The part of a graph that a rewrite touches, cut out as a program of its own, so that it can be proved alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from foldproof.fusion.constants import Constants
from foldproof.fusion.nodes import set_sizes, value_readers


class Region:
    """A copy of some nodes of a graph, in its order: constants become get_attr nodes, other operands placeholders.

    It returns every value that is read outside, so that a rewrite which changes one is not proved. ``copies`` maps the
    original nodes to their copies, ``operands`` are the nodes behind the placeholders, in their order.
    """

    def __init__(self, nodes: Sequence[Node], constants: Constants) -> None:
        self.graph = Graph()
        self.copies: dict[Node, Any] = {}
        self.operands: list[Node] = []
        self._constants = constants
        inside = set(nodes)
        operands = dict.fromkeys(x for node in nodes for x in node.all_input_nodes if x not in inside)
        for operand in operands:
            if constants.tensor_of(operand) is None:
                self._add_operand(operand)
        for operand in operands:
            if constants.tensor_of(operand) is not None:
                self.copies[operand] = self.graph.get_attr(constants.names[operand])
        for node in nodes:
            self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
        self.results = [node for node in nodes if not set(value_readers(node)) <= inside]
        self.graph.output(tuple(self.copies[node] for node in self.results))

    def parameter(self, name: str) -> Node:
        """A new get_attr node."""
        body = next(node for node in self.graph.nodes if node.op != "placeholder")
        with self.graph.inserting_before(body):
            return self.graph.get_attr(name)

    def make(self, new: Mapping[str, Tensor]) -> None:
        """Makes the module ``made``, which holds the constants that are read, the program's and ``new`` ones."""
        self.graph.eliminate_dead_code()
        names = [str(node.target) for node in self.graph.nodes if node.op == "get_attr"]
        self.made = GraphModule({n: new[n] if n in new else self._constants.tensors[n] for n in names}, self.graph)

    def inputs(self) -> list[Tensor]:
        """Tensors of the shape and dtype of the placeholders, a dynamic size the one that it was exported with."""
        return [_example(operand.meta["val"]) for operand in self.operands]

    def _add_operand(self, operand: Node) -> None:
        value = operand.meta["val"]
        if isinstance(value, Tensor):
            self.copies[operand] = self.graph.placeholder(operand.name)
            self.operands.append(operand)
        else:
            self.copies[operand] = set_sizes(value)


def _example(value: Tensor) -> Tensor:
    shape = [max(set_sizes(size), 1) for size in value.shape]  # an empty tensor shows nothing
    if value.is_floating_point():
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(value.device, value.dtype)
    return torch.zeros(shape, dtype=value.dtype, device=value.device)
