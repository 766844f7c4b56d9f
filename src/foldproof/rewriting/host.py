"""Forms of programs that can be edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torch.fx import Graph, Node

from foldproof.rewriting.constants import Constants


class GraphHost(Protocol):
    """Access to the constants of a form of program, and construction of a program from the edited graph."""

    graph: Graph
    constants: Constants
    subgraphs: nn.Module
    simplified: bool
    """True if regions were inlined, or idle calls dropped, so that the program differs without any rewrite."""

    def is_free(self, name: str) -> bool:
        """True if a new constant may have this name."""

    def insert(self, name: str, tensor: Tensor, like: Node) -> Node:
        """Insert a node for a new constant of the same kind as ``like``'s."""

    def finish(self, erased: Mapping[str, str]) -> Any:
        """Return the changed program; ``erased`` maps the names of erased nodes to those of their replacements."""
