"""Numbers that a recorded program read out of tensors, and that are constants of its graph since."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from foldproof.graph.module import get_attribute

_READ = torch.ops.aten._local_scalar_dense.default


def erase_reads(recorded: fx.GraphModule) -> None:
    """Erase reads, whose numbers stand in the graph already."""
    for node in reversed(list(recorded.graph.nodes)):
        if node.target is _READ and not node.users:
            recorded.graph.erase_node(node)
    recorded.recompile()


def reads_data(recorded: fx.GraphModule) -> bool:
    """Return True if a number was read that depends on an input or a floating-point attribute.

    Another input may then take another way. Positions and masks, made of whole numbers alone, are constants.
    """
    varying = set[fx.Node]()
    for node in recorded.graph.nodes:
        if node.op == "placeholder" or (node.op == "get_attr" and _is_float(recorded, node)):
            varying.add(node)
        elif any(source in varying for source in node.all_input_nodes):
            if node.target is _READ:
                return True
            varying.add(node)
    return False


def _is_float(recorded: fx.GraphModule, node: fx.Node) -> bool:
    held = get_attribute(recorded, str(node.target))
    return not isinstance(held, Tensor) or held.is_floating_point() or held.is_complex()
