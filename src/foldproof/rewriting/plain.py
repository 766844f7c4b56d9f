"""Graphs without what stands in the way of a rewriter and computes nothing: regions, assertions, unread calls.

``torch.export`` puts the calls under ``torch.no_grad()`` into a subgraph, and an assertion before each conversion of a
tensor. Where no gradient can exist, the calls are as good in the graph itself. What is asserted of a constant was seen
when it was exported. Calls whose results the model throws away are in the program, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from foldproof.graph.nodes import arguments, is_getitem, kind_of, operator_of
from foldproof.operators import is_functional
from foldproof.rewriting.constants import Constants
from foldproof.torch_internals import HigherOrderOperator

_NO_GRAD = "wrap_with_set_grad_enabled"


def inline_regions(graph: Graph, subgraphs: nn.Module, held: Mapping[Node, Tensor]) -> bool:
    """Replace subgraphs that run without gradients, and read nothing that may have one, by their calls.

    Args:
        graph: the graph.
        subgraphs: the module that has the subgraphs as attributes.
        held: the nodes that stand for parameters, buffers and constants, with their tensors.

    Returns:
        True if there was one.
    """
    found = False
    for call in list(graph.nodes):
        part = _find_part(call, subgraphs)
        if part is not None and not any(_may_have_gradient(operand, held) for operand in call.args[2:]):
            _inline(call, part)
            found = True
    return found


def drop_idle(graph: Graph, constants: Constants, named: Collection[str] = ()) -> bool:
    """Drop what is asserted of the dtype, device and layout of constants, and calls that nothing reads.

    Args:
        graph: the graph.
        constants: its constants.
        named: names of nodes that stay, because something else than the graph refers to them.

    Returns:
        True if there was something to drop.
    """
    found = False
    for node in reversed(graph.nodes):
        asserted = kind_of(node) == "_assert_tensor_metadata" and all(map(constants.is_fixed, node.all_input_nodes))
        unread = not node.users and node.name not in named and _only_makes_tensors(node)
        if asserted or unread:
            graph.erase_node(node)
            found = True
    return found


def _only_makes_tensors(node: Node) -> bool:
    """Return True for a call that surely does nothing but return tensors; others check something, or define a size."""
    value, operator = node.meta.get("val"), operator_of(node)
    functional = is_getitem(node) or (operator is not None and is_functional(operator, arguments(node)))
    results = value if isinstance(value, (tuple, list)) else [value]
    return functional and all(isinstance(x, Tensor) for x in results)


def _find_part(call: Node, subgraphs: nn.Module) -> GraphModule | None:
    """Return the subgraph that a call runs without gradients, if it has calls alone; None for any other node."""
    if not isinstance(call.target, HigherOrderOperator) or call.target.name() != _NO_GRAD or call.args[0] is not False:
        return None
    part = getattr(subgraphs, str(call.args[1].target), None) if isinstance(call.args[1], Node) else None
    if not isinstance(part, GraphModule) or not all(is_getitem(user) for user in call.users):
        return None
    return part if all(node.op in ("placeholder", "call_function", "output") for node in part.graph.nodes) else None


def _may_have_gradient(operand: Any, held: Mapping[Node, Tensor]) -> bool:
    """Return True for a tensor that is computed from a parameter, or from numbers that the caller gives."""
    pending, seen = [operand] if isinstance(operand, Node) else [], set[Node]()
    while pending:
        node = pending.pop()
        value = node.meta.get("val")
        if node in seen or (isinstance(value, Tensor) and not value.is_floating_point()):
            continue
        seen.add(node)
        if node in held and not held[node].requires_grad:
            continue
        if node.op != "call_function":
            return True
        pending += node.all_input_nodes
    return False


def _inline(call: Node, part: GraphModule) -> None:
    given = iter(call.args[2:])
    copies: dict[Node, Any] = {}
    results: Any = ()
    for node in part.graph.nodes:
        if node.op == "placeholder":
            copies[node] = next(given)
        elif node.op == "output":
            results = map_arg(node.args[0], copies.__getitem__)
        else:
            with call.graph.inserting_before(call):
                copies[node] = call.graph.node_copy(node, copies.__getitem__)
    for taken in list(call.users):
        result = results[taken.args[1]]
        taken.replace_all_uses_with(result)
        call.graph.erase_node(taken)
        if result in copies.values() and result.op == "call_function":
            result.name = taken.name  # by which the signature of a module may know it
    held = call.args[1]
    call.graph.erase_node(call)
    if isinstance(held, Node) and not held.users:
        call.graph.erase_node(held)
