"""Shapes and dtypes as constants: at inputs of given shapes, what a graph computes from these alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.onnx_graph import pointwise, shapes
from foldproof.onnx_graph.registry import DTYPES
from foldproof.torch_internals import disable_current_modes


def hold_shapes(module: fx.GraphModule, inputs: Sequence[Any]) -> None:
    """Replace the nodes that look up a shape or dtype, in place, by what they give for these inputs.

    A proof then holds for inputs of these shapes. What optimizers fold from shapes is a computation on constants.
    """
    targets = (shapes.shape, shapes.size, pointwise.cast_like)
    nodes = [node for node in module.graph.nodes if node.target in targets]
    if not nodes:
        return
    found: dict[fx.Node, Tensor] = {}

    class Looking(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            made = super().run_node(n)
            if n in nodes:
                found[n] = made
            return made

    with torch.no_grad(), disable_current_modes():
        Looking(module).run(*inputs)
    for node, value in found.items():
        with module.graph.inserting_before(node):
            if node.target is pointwise.cast_like:
                to = next(number for number, dtype in DTYPES.items() if dtype is value.dtype)
                held = module.graph.call_function(pointwise.cast, (node.args[0],), {"to": to})
            else:
                module.register_buffer(f"{node.name}_held", value)
                held = module.graph.get_attr(f"{node.name}_held")
        node.replace_all_uses_with(held)
        module.graph.erase_node(node)
    module.recompile()
