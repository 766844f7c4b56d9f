"""A glance at a graph, which tells in little time that nothing has changed since the last one.

Compilers run dozens of passes, and most of them change nothing. A snapshot takes as long as a pass, so a graph whose
nodes still hold the very same objects needs no new one. Node arguments are immutable, and a glance keeps the objects
alive, so that an identity stands for one object. Contents of attributes are compared apart from it.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from foldproof.program.mirror import hung_on
from foldproof.torch_internals import structures_of


class Sight:
    """The objects that make up the graph of a module."""

    def __init__(self, source: fx.GraphModule) -> None:
        graph = source.graph
        self._objects: list[Any] = [source, graph, structures_of(graph), *hung_on(source)]
        for node in graph.nodes:
            self._objects += (node, node.op, node.name, node.target, node.args, node.kwargs)
            self._objects += (*node.meta, *node.meta.values())

    def shows(self, other: Sight) -> bool:
        """Return True if both show the same objects in the same places."""
        mine, others = self._objects, other._objects
        return len(mine) == len(others) and all(map(operator.is_, mine, others))
