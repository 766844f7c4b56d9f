"""Facts about a node of an FX graph, from the operator's schema or the node's metadata."""

from __future__ import annotations

import operator
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from foldproof import operators
from foldproof.graph.text import operator_name
from foldproof.operators import (
    bind_arguments,
    find_operator,
    get_name,
    list_shared,
    list_updated_statistics,
    list_written,
    to_edge,
)
from foldproof.torch_internals import FakeTensor, HigherOrderOperator, OpOverload, OpOverloadPacket

aten = torch.ops.aten

_ANY_SIZE = 4  # stands for a dimension that depends on the data

# Operators that read only the shape (and dtype) of a tensor; some of them, only that of one operand.
_SHAPE_OF_ALL = frozenset({"sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "size", "numel"}) | frozenset(
    {"empty_like", "full_like", "ones_like", "zeros_like", "new_empty", "new_full", "new_ones", "new_zeros"}
    | {"_assert_tensor_metadata"}
)
_SHAPE_OF_OTHER = frozenset({"expand_as", "reshape_as", "type_as", "view_as"})


def operator_of(node: Node) -> OpOverload | None:
    """Return the ATen operator that a node calls, in edge programs too; None for any other node."""
    return find_operator(node.target) if node.op == "call_function" else None


def kind_of(node: Node) -> str:
    """Return the operator's name without overload: ``conv2d``. Copying and unsafe variants have the view's name.

    Operators outside of ATen, and nodes that call none, have the empty name.
    """
    found = operator_of(node)
    if found is None or found.namespace != "aten":
        return ""
    name = get_name(found)
    return name.removeprefix("_unsafe_").removesuffix("_copy") if name != "_to_copy" else name


def arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of an ATen call by name, positional, keyword and default alike."""
    found = operator_of(node)
    assert found is not None
    return bind_arguments(found, node.args, node.kwargs)


def set_argument(node: Node, name: str, value: Any) -> None:
    """Replace or add one argument of an ATen call."""
    place = list(arguments(node)).index(name)
    if place < len(node.args):
        node.args = (*node.args[:place], value, *node.args[place + 1 :])
    elif place == len(node.args) and name not in node.kwargs:
        node.args = (*node.args, value)
    else:
        node.kwargs = {**node.kwargs, name: value}


def is_edge(node: Node) -> bool:
    """True if the node calls an operator of an edge program."""
    return operator_of(node) is not None and not isinstance(node.target, (OpOverload, OpOverloadPacket))


def set_operator(node: Node, operator: OpOverload) -> None:
    """Make the node call another ATen operator; in an edge program, its edge form."""
    node.target = to_edge(operator) if is_edge(node) else operator


def insert_call(before: Node, origin: Node, operator: OpOverload, *args: Any) -> Node:
    """Insert a call of an ATen operator just before ``before``, as if it replaced ``origin``.

    The new node is an edge operator if ``origin`` is one, refers to the same source, and has a fake value if its
    operands have one.
    """
    with before.graph.inserting_before(before):
        node = before.graph.call_function(operator, args)
    node.meta = {key: origin.meta[key] for key in ("nn_module_stack", "stack_trace") if key in origin.meta}
    values = [x.meta.get("val") if isinstance(x, Node) else x for x in args]
    fakes = [value for value in values if isinstance(value, FakeTensor)]
    if fakes and all(value is not None for value in values):
        with fakes[0].fake_mode:
            node.meta["val"] = operator(*values)
    if is_edge(origin):
        node.target = to_edge(operator)
    return node


def short_name(node: Node) -> str:
    """Return the operator's bare name: ``conv2d``."""
    found = operator_of(node)
    return get_name(found) if found is not None else operator_name(node)


def set_sizes(x: Any) -> Any:
    """Return ``x`` with symbolic sizes replaced by their numbers at export."""
    if isinstance(x, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return x.node.pytype(_ANY_SIZE) if x.node.hint is None else x.node.hint
    if isinstance(x, (list, tuple)):
        return type(x)(map(set_sizes, x)) if type(x) in (list, tuple) else [set_sizes(y) for y in x]
    return {name: set_sizes(y) for name, y in x.items()} if isinstance(x, dict) else x


def value_readers(node: Node) -> list[Node]:
    """Return the nodes that read the value and not only its shape; parts that nobody reads do not count."""
    return [user for user in node.users if not _reads_shape_only(user, node) and (user.users or not is_getitem(user))]


def _reads_shape_only(user: Node, node: Node) -> bool:
    kind = kind_of(user)
    return kind in _SHAPE_OF_ALL or (kind in _SHAPE_OF_OTHER and user.args[0] is not node)


def listed(nodes: Iterable[Node]) -> str:
    """Return names of nodes for people, "the program's output" for the output."""
    return ", ".join("the program's output" if node.op == "output" else node.name for node in nodes)


def is_getitem(node: Node) -> bool:
    """True if the node takes one of several results."""
    return node.op == "call_function" and node.target is operator.getitem


def operator_node(node: Node) -> Node:
    """Return the call whose result, or one of whose results, ``node`` is."""
    found = node.args[0] if is_getitem(node) else node
    assert isinstance(found, Node)
    return found


def is_view(node: Node, but: Container[Node] = ()) -> bool:
    """True if the node shows its only operand's memory in another shape or order. Operands ``but`` do not count."""
    found = operator_of(node)
    shows = is_getitem(node) if found is None else operators.is_view(found)
    return shows and sum(operand not in but for operand in node.all_input_nodes) == 1


def base_of(node: Node) -> Node:
    """Return the first node of a chain of views; the node itself if it is no view."""
    while is_view(node):
        node = node.all_input_nodes[0]
    return node


def memory_of(node: Node) -> list[Node]:
    """Return the node, and all nodes that its value may share memory with: bases of views, and written operands."""
    found, pending = [], [node]
    while pending:
        found.append(pending.pop())
        pending += list_sharing(found[-1])
    return found


def written(graph: Graph, subgraphs: nn.Module) -> dict[Node, Node]:
    """Return every node whose memory some node may write to, with the last writer."""
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            targets = node.all_input_nodes if _may_write(node, subgraphs) else []
        else:
            targets = list_overwritten(node)
        found |= dict.fromkeys([x for target in targets for x in memory_of(target)], node)
    return found


def _may_write(call: Node, subgraphs: nn.Module) -> bool:
    """True if a higher-order operator may write to its operands: unless none of its subgraphs writes to its own."""
    held = [getattr(subgraphs, str(node.target), None) for node in call.all_input_nodes if node.op == "get_attr"]
    parts = [part for part in held if isinstance(part, GraphModule)]
    return not parts or any(node.op == "placeholder" for part in parts for node in written(part.graph, part))


def list_sharing(node: Node) -> list[Node]:
    """Return the operands whose memory the node's value may share."""
    found = operator_of(node)
    if found is None:
        return node.all_input_nodes if is_getitem(node) else []  # an element of the list that a split or chunk returns
    return _named(node, list_shared(found))


def list_overwritten(node: Node) -> list[Node]:
    """Return the operands that the node writes to."""
    found = operator_of(node)
    if found is None:
        return []
    return _named(node, dict.fromkeys([*list_written(found), *list_updated_statistics(found, arguments(node))]))


def _named(node: Node, names: Iterable[str]) -> list[Node]:
    """Return the nodes among the arguments of these names, also in lists."""
    given = arguments(node)
    operands = [x for name in names for x in (given[name] if isinstance(given[name], (list, tuple)) else [given[name]])]
    return [x for x in operands if isinstance(x, Node)]
