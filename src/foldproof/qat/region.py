"""What one fold touches, cut out before and after as programs of their own: if they agree, so do the whole programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule, Node


def region(
    end: Node,
    data: Node,
    names: Mapping[Node, str],
    tensors: Mapping[str, Tensor],
    instead: Mapping[Node, Node | int],
) -> GraphModule:
    """A module that computes ``end`` from ``data``, its one input, and from constants, by their names.

    Each node of ``instead`` is taken to be the node, or the number, that it maps to.
    """
    graph = Graph()
    copies: dict[Node, Any] = {data: graph.placeholder("data")}
    held: dict[str, Tensor] = {}

    def copy(node: Node) -> Any:
        if node not in copies:
            other = instead.get(node)
            if other is not None:
                copies[node] = copy(other) if isinstance(other, Node) else other
            elif node in names:
                held[names[node]] = tensors[names[node]]
                copies[node] = graph.get_attr(names[node])
            else:
                copies[node] = graph.node_copy(node, copy)
        return copies[node]

    graph.output(copy(end))
    return GraphModule(held, graph)
