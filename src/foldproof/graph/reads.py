"""Numbers that a recorded program read out of tensors, and that are constants of its graph since."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

from foldproof.graph.module import get_attribute
from foldproof.graph.nodes import list_overwritten, memory_of, operator_of
from foldproof.operators import has_dynamic_shape, is_random

aten = torch.ops.aten
_READ = aten._local_scalar_dense.default
_READING = frozenset({_READ, aten.equal.default, aten.is_nonzero.default, aten.allclose.default})


class Reads(TorchFunctionMode):
    """While active, lists and arrays that are made of a tensor are recorded as reads; PyTorch calls no operator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            args[0].detach().sum().item()
        return func(*args, **(kwargs or {}))


def erase_reads(recorded: fx.GraphModule) -> None:
    """Erase reads, whose numbers stand in the graph already."""
    for node in reversed(list(recorded.graph.nodes)):
        if node.target is _READ and not node.users:
            recorded.graph.erase_node(node)
    recorded.recompile()


def reads_data(recorded: fx.GraphModule) -> bool:
    """Return True if a number or a size was read that depends on an input, a floating-point attribute, or a draw.

    Another input, or another draw, may then take another way. Positions and masks, made of whole numbers alone, are
    constants. A size that depends on values counts as read.
    """
    nodes = list(recorded.graph.nodes)
    while nodes and not _reads(nodes[-1]):  # no read depends on what follows the last one
        nodes.pop()
    varying = set[fx.Node]()
    for node in nodes:
        if _varies(recorded, node) or any(x in varying for source in node.all_input_nodes for x in memory_of(source)):
            if _reads(node):
                return True
            varying.add(node)
            varying.update(x for target in list_overwritten(node) for x in memory_of(target))
    return False


def _reads(node: fx.Node) -> bool:
    operator = operator_of(node)
    if operator is None:
        return False
    if operator is aten.index.Tensor:
        return any(x.meta["val"].dtype is torch.bool for x in node.all_input_nodes[1:])
    return operator in _READING or has_dynamic_shape(operator)


def _varies(recorded: fx.GraphModule, node: fx.Node) -> bool:
    operator = operator_of(node)
    if operator is not None:
        return is_random(operator)
    return node.op == "placeholder" or (node.op == "get_attr" and _is_float(recorded, node))


def _is_float(recorded: fx.GraphModule, node: fx.Node) -> bool:
    held = get_attribute(recorded, str(node.target))
    return not isinstance(held, Tensor) or held.is_floating_point() or held.is_complex()
