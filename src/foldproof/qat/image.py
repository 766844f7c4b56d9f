"""A graph as it was before a rewrite, to compute its constants from: in float64, or on shadows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.node import map_arg

from foldproof.qat.host import Host, copied_graph
from foldproof.rounding import Float64
from foldproof.shadow import Shadow

Leaves = Mapping[str, Tensor]


class Image:
    """A copy of a host's graph that stays as it is while the host is rewritten.

    Constant is what holds a tensor that nothing writes to, and what is computed from such by operators without chance.
    """

    def __init__(self, host: Host) -> None:
        _, self.twins = copied_graph(host.graph)
        """From the host's nodes to the nodes here."""
        self.names = {self.twins[node]: name for node, name in host.constants().items()}
        self.tensors = dict(host.tensors())
        self._constant: dict[Node, bool] = {}
        for node in host.graph.nodes:
            self._constant[self.twins[node]] = self._is_constant(self.twins[node])

    def _is_constant(self, node: Node) -> bool:
        if node in self.names:
            return True
        if node.op != "call_function" or (isinstance(node.target, OpOverload) and node.target._schema.is_mutable):
            return False
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            return False
        return all(self._constant[operand] for operand in node.all_input_nodes)

    def constant(self, node: Any) -> bool:
        """Is it a number, or a node whose value does not depend on the program's input?"""
        return not isinstance(node, Node) or self._constant[node]

    def evaluate(self, node: Any, leaves: Leaves) -> Any:
        """The value of a constant node at these leaves, in float64."""
        with precisely(leaves.values()):
            return self.value(node, leaves, {})

    def value(self, node: Any, leaves: Leaves, values: dict[Node, Any]) -> Any:
        """As `evaluate`, in the precision of the caller; what is computed on the way is added to ``values``."""
        pending = [node] if isinstance(node, Node) else []
        while pending:
            current = pending[-1]
            missing = [operand for operand in current.all_input_nodes if operand not in values]
            if current in values or (current not in self.names and missing):
                pending.pop() if current in values else pending.extend(missing)
                continue
            pending.pop()
            if current in self.names:
                name = self.names[current]
                values[current] = _wide(leaves[name] if name in leaves else self.tensors[name])
            else:
                args, kwargs = map_arg((current.args, current.kwargs), values.__getitem__)
                values[current] = current.target(*args, **kwargs)
        return values[node] if isinstance(node, Node) else node


def precisely(tensors: Iterable[Tensor]) -> Any:
    """Computing in float64; shadows do so by themselves, once they are of that dtype."""
    return contextlib.nullcontext() if any(isinstance(t, Shadow) for t in tensors) else Float64()


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.float64) if t.is_floating_point() else t
