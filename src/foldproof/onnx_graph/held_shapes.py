"""Shapes and dtypes as constants: at inputs of given shapes, what a graph computes from these alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.graph.module import get_attribute
from foldproof.onnx_graph import pointwise, shapes
from foldproof.onnx_graph.reader import single
from foldproof.onnx_graph.registry import DEFINITIONS, DTYPES, F, NotTranslated, whole_numbers
from foldproof.torch_internals import disable_current_modes

_OF_SHAPES = {shapes.shape, shapes.size}


def holds_shape(function: F) -> F:
    """Declare a definition to be of shapes alone."""
    _OF_SHAPES.add(function)
    return function


def hold_shapes(module: fx.GraphModule, inputs: Sequence[Any]) -> None:
    """Replace, in place, what depends on shapes and dtypes alone by what it is for these inputs.

    These are the nodes that look up a shape or dtype, and sizes, axes and the like that are computed from shapes. A
    proof then holds for inputs of these shapes. What optimizers fold from shapes is a computation on constants.
    """
    numbers = {found.function: found.numbers for found in DEFINITIONS.values() if found.numbers}
    looked_up = {*_OF_SHAPES, pointwise.cast_like}
    wanted = [n for n in module.graph.nodes if n.target in looked_up or n.target in numbers]
    if not wanted:
        return
    values, fixed_nodes = _values(module, inputs), _fixed(module)
    for node in wanted:
        places = numbers.get(node.target, frozenset())
        fixed = [i for i, x in enumerate(node.args) if i in places and isinstance(x, fx.Node) and x in fixed_nodes]
        node.args = tuple(whole_numbers(values[x]) if i in fixed else x for i, x in enumerate(node.args))
    for node in wanted:
        if node.target in numbers:
            continue
        with module.graph.inserting_before(node):
            if node.target is pointwise.cast_like:
                made = values[node]
                to = next(number for number, dtype in DTYPES.items() if dtype is made.dtype)
                if made.numel() == 1 and node.args[0] in fixed_nodes:
                    held = module.graph.call_function(single, (made.item(), tuple(made.shape)), {"to": to})
                else:
                    held = module.graph.call_function(pointwise.cast, (node.args[0],), {"to": to})
            else:
                module.register_buffer(f"{node.name}_held", values[node])
                held = module.graph.get_attr(f"{node.name}_held")
        node.replace_all_uses_with(held)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code(lambda node: node.op != "placeholder")
    module.recompile()


def _values(module: fx.GraphModule, inputs: Sequence[Any]) -> dict[fx.Node, Tensor]:
    """Return the whole numbers that the nodes compute, and results of casts."""
    found: dict[fx.Node, Tensor] = {}

    class Looking(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            made = super().run_node(n)
            if isinstance(made, Tensor) and (not made.is_floating_point() or n.target is pointwise.cast_like):
                found[n] = made
            return made

    try:
        with torch.no_grad(), disable_current_modes():
            Looking(module).run(*inputs)
    except NotTranslated as error:
        raise NotTranslated(str(error).splitlines()[0]) from error  # the interpreter adds the node
    return found


def _fixed(module: fx.GraphModule) -> set[Any]:
    """Return the nodes that depend on shapes and constants alone, and on no parameter."""
    found = set[Any]()
    for node in module.graph.nodes:
        alone = node.op == "call_function" and all(x in found for x in node.all_input_nodes)
        if node.op == "get_attr":
            held = get_attribute(module, str(node.target))
            alone = isinstance(held, Tensor) and not held.is_floating_point()
        if node.target in _OF_SHAPES or alone:
            found.add(node)
    return found
