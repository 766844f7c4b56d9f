"""A graph as it was before a rewrite, to compute its constants from: in float64, or on shadows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from foldproof.graph.nodes import is_getitem, is_view, operator_of, set_sizes
from foldproof.rewriting.exported import copied
from foldproof.rewriting.host import GraphHost
from foldproof.rewriting.refusal import CannotFold
from foldproof.rounding import Float64
from foldproof.shadow import Shadow

Leaves = Mapping[str, Tensor]
Sizes = Mapping[str, torch.Size | int]
"""Shapes of tensors, and values of whole numbers, by the names of nodes."""


class Image:
    """A copy of a host's graph that stays as it is while the host is rewritten.

    ``twins`` maps the host's nodes to those here, ``names`` those here to the names of the constants that they stand
    for, ``tensors`` these names to what the program holds, ``numbers`` the nodes that compute sizes to what they are
    at the example inputs: ``sizes`` says so, or else the nodes' metadata.
    """

    def __init__(self, host: GraphHost, sizes: Sizes) -> None:
        nodes = list(host.graph.nodes)
        self.twins = dict(zip(nodes, copied(host.graph).nodes, strict=True))
        constants = host.constants
        self.tensors = dict(constants.tensors)
        fixed = [n for n in constants.names if not constants.is_written(n) and not constants.changes(_held(host, n))]
        self.names = {self.twins[node]: constants.names[node] for node in fixed}
        self._sizes = {node: size for node in self.twins.values() if (size := _size(node, sizes)) is not None}
        self.numbers = {node: size for node, size in self._sizes.items() if isinstance(size, int)}
        computed = [node for node in nodes if constants.holds_computed(node)]
        self._constant = set(self.names)
        for node in (self.twins[node] for node in computed):
            if all(operand in self._constant for operand in node.all_input_nodes):
                self._constant.add(node)

    def shape(self, node: Node) -> torch.Size:
        """
        Raises:
            CannotFold: it is not known.
        """
        size = self._sizes.get(node)
        if not isinstance(size, torch.Size):
            raise CannotFold(f"the shape of {node.name} is not known: give foldproof.fold_qat example inputs")
        return size

    def constant(self, node: object) -> bool:
        """Is it a number, or a node whose value depends on no input of the program, nor on its shape?"""
        return not isinstance(node, Node) or node in self._constant

    def origins(self, node: Node) -> list[Node]:
        """The floating-point constants that a node is computed from, the nearest first."""
        found, pending = dict[Node, None](), [node]
        while pending:
            current = pending.pop(0)
            if current not in found:
                found[current] = None
                pending += [] if current in self.names else current.all_input_nodes
        return [n for n in found if n in self.names and self.tensors[self.names[n]].is_floating_point()]

    def is_view(self, node: Node) -> bool:
        """Does it show its one tensor in another shape or order?"""
        return is_view(node, but=self.numbers) and not is_getitem(node)

    def evaluate(self, node: Any, leaves: Leaves) -> Any:
        """The value of a constant node at these leaves, in float64; numbers are their own."""
        with precisely(leaves.values()), torch.no_grad():
            return self.value(node, leaves, {})

    def value(self, node: Any, leaves: Leaves, values: dict[Node, Any]) -> Any:
        """As `evaluate`, in the precision of the caller. ``values`` are known already; more are added on the way."""
        pending = [node] if isinstance(node, Node) else []
        while pending:
            current = pending[-1]
            known = current in self.names or current in self.numbers
            missing = [] if known else [n for n in current.all_input_nodes if n not in values]
            if current in values or not missing:
                pending.pop()
                if current not in values:
                    values[current] = self._computed(current, leaves, values)
            pending += missing if current not in values else []
        return values[node] if isinstance(node, Node) else node

    def _computed(self, node: Node, leaves: Leaves, values: Mapping[Node, Any]) -> Any:
        if node in self.numbers:
            return self.numbers[node]
        name = self.names.get(node)
        if name is not None:
            held = leaves[name] if name in leaves else self.tensors[name]
            return held.detach().to(torch.float64) if held.is_floating_point() else held
        args, kwargs = map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        function = operator_of(node) or node.target
        return function(*args, **kwargs)  # type: ignore[operator]


def precisely(tensors: Iterable[Tensor]) -> Any:
    """Computing in float64; shadows do so by themselves, once they are of that dtype."""
    return contextlib.nullcontext() if any(isinstance(t, Shadow) for t in tensors) else Float64()


def _held(host: GraphHost, node: Node) -> Tensor:
    return host.constants.tensors[host.constants.names[node]]


def _size(node: Node, sizes: Sizes) -> torch.Size | int | None:
    if node.name in sizes:
        return sizes[node.name]
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return torch.Size(set_sizes(tuple(value.shape)))
    return set_sizes(value) if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) else None
