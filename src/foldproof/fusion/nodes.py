"""Questions to a node of an FX graph that the operator's schema or the node's metadata answers."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Graph, GraphModule, Node

from foldproof.fusion.refusal import CannotFold
from foldproof.program.nodes import operator_name

aten = torch.ops.aten

_SHAPE_ONLY = frozenset({aten.sym_size.int, aten.sym_numel.default})


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an ATen call by name, positional, keyword and default alike."""
    found = {}
    for i, argument in enumerate(_schema(node).arguments):
        if i < len(node.args):
            found[argument.name] = node.args[i]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def set_argument(node: Node, name: str, value: Node) -> None:
    """Replaces or adds one argument of an ATen call."""
    place = next(i for i, argument in enumerate(_schema(node).arguments) if argument.name == name)
    if place < len(node.args):
        node.update_arg(place, value)
    elif place == len(node.args) and name not in node.kwargs:
        node.args = (*node.args, value)
    else:
        node.update_kwarg(name, value)


def short_name(node: Node) -> str:
    """The operator's bare name: ``conv2d``."""
    return node.target._schema.name.split("::")[-1] if isinstance(node.target, OpOverload) else operator_name(node)


def value_of(node: Node) -> torch.Tensor:
    """The fake tensor that stands for the node's value, with its shape, dtype and strides."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise CannotFold(f"the shape of {node.name} is not known: export the program with torch.export")
    return value


def value_readers(node: Node) -> list[Node]:
    """The nodes that read the value; those that ask only for its shape are left out."""
    return [user for user in node.users if user.target not in _SHAPE_ONLY]


def listed(nodes: Iterable[Node]) -> str:
    """Nodes for people: their names, or that it is the program's output."""
    return ", ".join("the program's output" if node.op == "output" else node.name for node in nodes)


def constant_views(node: Node) -> list[Node]:
    """The views (transpositions, reshapes) through which ``node`` reads placeholders, in the order of the graph."""
    found: list[Node] = []
    for operand in node.all_input_nodes:
        chain: list[Node] = []
        while is_view(operand):
            chain.append(operand)
            operand = operand.all_input_nodes[0]
        if operand.op == "placeholder":
            found += reversed(chain)
    return found


def is_view(node: Node) -> bool:
    """Does it show the memory of its only operand in another shape or order?"""
    if node.op != "call_function" or len(node.all_input_nodes) != 1:
        return False
    return bool(_aliased_places(node.target)) and not _written_places(node.target)


def base_of(node: Node) -> Node:
    """What a chain of views is a view of; the node itself where it is no view."""
    while is_view(node):
        node = node.all_input_nodes[0]
    return node


def written(graph: Graph, subgraphs: nn.Module) -> dict[Node, Node]:
    """Every node whose memory some node may write to, and that writer."""
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            targets = node.all_input_nodes if _may_write(node, subgraphs) else []
        else:
            targets = _operands(node, _written_places(node.target))
            if _updates_statistics(node):
                given = arguments(node)
                targets += [n for n in (given["running_mean"], given["running_var"]) if n is not None]
        while targets:
            target = targets.pop()
            if target not in found:
                found[target] = node
                targets += _operands(target, _aliased_places(target.target))  # a view: its base is written to as well
    return found


def _may_write(call: Node, subgraphs: nn.Module) -> bool:
    """May a higher-order operator write to its operands? Not where each of its subgraphs writes to none of its own."""
    held = [getattr(subgraphs, str(node.target), None) for node in call.all_input_nodes if node.op == "get_attr"]
    parts = [part for part in held if isinstance(part, GraphModule)]
    return not parts or any(node.op == "placeholder" for part in parts for node in written(part.graph, part))


def _updates_statistics(node: Node) -> bool:
    """Normalisations of a batch write to their running statistics, which the schema of some doesn't say."""
    if not isinstance(node.target, OpOverload) or "norm" not in node.target._schema.name:
        return False
    given = arguments(node)
    return "running_mean" in given and bool(given.get("training") or given.get("use_input_stats"))


def _schema(node: Node) -> torch.FunctionSchema:
    assert isinstance(node.target, OpOverload)
    return node.target._schema


def _operands(node: Node, names: tuple[tuple[int, str], ...]) -> list[Node]:
    found: list[Node] = []
    for place, name in names:
        operand = node.args[place] if place < len(node.args) else node.kwargs.get(name)
        found += [n for n in (operand if isinstance(operand, (list, tuple)) else [operand]) if isinstance(n, Node)]
    return found


@cache
def _written_places(target: Any) -> tuple[tuple[int, str], ...]:
    return _places(target, writes=True)


@cache
def _aliased_places(target: Any) -> tuple[tuple[int, str], ...]:
    if target is operator.getitem:  # of the list that a split or chunk returns
        return ((0, "a"),)
    return _places(target, writes=False)


def _places(target: Any, *, writes: bool) -> tuple[tuple[int, str], ...]:
    if not isinstance(target, OpOverload):
        return ()
    return tuple(
        (i, argument.name)
        for i, argument in enumerate(target._schema.arguments)
        if argument.alias_info is not None and (argument.alias_info.is_write or not writes)
    )
