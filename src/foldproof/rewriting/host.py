"""A form of program that can be edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torch.fx import Graph, Node

from foldproof.rewriting.constants import Constants


class GraphHost(Protocol):
    """Says where the constants of a form of program live, and makes a program of the edited graph."""

    graph: Graph
    constants: Constants
    subgraphs: nn.Module

    def is_free(self, name: str) -> bool:
        """May a new constant have this name?"""

    def insert(self, name: str, tensor: Tensor, like: Node) -> Node:
        """A node that stands for a new constant, of the kind of ``like``, which does."""

    def finish(self, erased: Mapping[str, str]) -> Any:
        """The changed program; ``erased`` maps names of nodes that are gone to those that took their place."""
