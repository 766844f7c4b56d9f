"""Shapes of tensors and values of whole numbers, at the example that a program was exported with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import set_sizes
from foldproof.rewriting.refusal import CannotFold

Observed = Mapping[str, "torch.Size | int"]
"""Shapes of tensors, and values of whole numbers, by the names of nodes."""


def value_of(node: Node) -> Tensor:
    """Return the fake tensor of the node's value, with its shape, dtype and strides.

    Raises:
        CannotFold: the node has none.
    """
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise CannotFold(f"the shape of {node.name} is not known: export the program with torch.export")
    return value


class Sizes:
    """Sizes of nodes: the ``observed`` ones by name, otherwise those of the nodes' metadata."""

    def __init__(self, observed: Observed | None = None) -> None:
        self._observed = observed or {}

    def shape(self, node: Node) -> torch.Size:
        """Return the shape of a tensor.

        Raises:
            CannotFold: it is unknown.
        """
        size = self._size(node)
        if not isinstance(size, torch.Size):
            raise CannotFold(f"the shape of {node.name} is not known: give foldproof.fold_qat example inputs")
        return size

    def number(self, node: Node) -> int | None:
        """Return the value of a node that computes a whole number, such as a size; None for any other node."""
        size = self._size(node)
        return size if isinstance(size, int) else None

    def _size(self, node: Node) -> torch.Size | int | None:
        if node.name in self._observed:
            return self._observed[node.name]
        value: Any = node.meta.get("val")
        if isinstance(value, Tensor):
            return torch.Size(set_sizes(tuple(value.shape)))
        return set_sizes(value) if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) else None
