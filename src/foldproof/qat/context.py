"""The program under edit, with shapes at the example inputs, and constants as expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import is_getitem, is_view
from foldproof.rewriting.edit import NewConstant
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.sizes import Sizes


@dataclass(frozen=True)
class Context:
    """An editor of a program, and the sizes of its nodes."""

    editor: GraphEditor
    sizes: Sizes

    def is_number(self, node: Node) -> bool:
        """Return True if the node computes an integer, such as a size."""
        return self.sizes.number(node) is not None

    def is_fixed(self, x: object) -> bool:
        """Return True for a number, and for a node that depends on no input of the program and no shape of one."""
        return not isinstance(x, Node) or self.editor.constants.is_fixed(x)

    def is_given(self, node: Node) -> bool:
        """Return True if the node is fixed, or an integer."""
        return self.is_number(node) or self.is_fixed(node)

    def is_view(self, node: Node) -> bool:
        """Return True if the node only changes the shape or order of one tensor."""
        return is_view(node, but=[x for x in node.all_input_nodes if self.is_number(x)]) and not is_getitem(node)

    def origins(self, node: Node) -> list[str]:
        """List the floating-point constants that a fixed node is computed from, the nearest first."""
        return self.editor.constants.origins(node)

    def expression(self, x: Any) -> Operand:
        """Return a fixed node as an expression of the program's constants, and a number unchanged."""
        if not isinstance(x, Node):
            return x  # type: ignore[no-any-return]
        return self.editor.constants.expression(x, x.name, integers=True)

    def value(self, x: Any) -> Tensor:
        """Compute an expression, a fixed node or a number in float64."""
        found = self.expression(x) if isinstance(x, Node) else x
        if isinstance(found, (Expression, str)):
            return self.editor.constants.value(found)
        return torch.as_tensor(found, dtype=torch.float64)

    def new(
        self, role: str, base: str, expression: Operand, dtype: torch.dtype, like: str | None = None
    ) -> NewConstant:
        """Plan a new constant of the kind of the constant ``like``, by default of any buffer, if there is one."""
        if like is None:
            tensors = self.editor.constants.tensors
            buffers = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.nn.Parameter)]
            like = (buffers or list(tensors))[0]
        return NewConstant(role, base, like, dtype, expression)
