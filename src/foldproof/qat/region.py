"""What one fold touches, cut out before and after as programs of their own: if they agree, so do the whole programs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.fx import Graph, GraphModule, Node


def region(
    end: Node, data: Node, names: Mapping[Node, str], tensors: Mapping[str, Tensor], left_out: Mapping[Node, Node]
) -> GraphModule:
    """A module that computes ``end`` from ``data``, its one input, and from constants, by their names.

    Each node of ``left_out`` is taken to be the node that it maps to.
    """
    graph = Graph()
    copies: dict[Node, Node] = {data: graph.placeholder("data")}
    held: dict[str, Tensor] = {}
    pending = [end]
    while pending:
        node = pending[-1]
        operands = [left_out[node]] if node in left_out else [] if node in names else node.all_input_nodes
        missing = [operand for operand in operands if operand not in copies]
        if node in copies or not missing:
            pending.pop()
        pending += missing if node not in copies else []
        if node in copies or missing:
            continue
        if node in left_out:
            copies[node] = copies[left_out[node]]
        elif node in names:
            held[names[node]] = tensors[names[node]]
            copies[node] = graph.get_attr(names[node])
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[end])
    return GraphModule(held, graph)
