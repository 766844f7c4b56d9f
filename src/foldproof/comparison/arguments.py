"""Graphs that are the same but for an argument or a parameter: what a reader wants to know before any number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from foldproof.comparison.attribution import short
from foldproof.comparison.graph import Graph
from foldproof.comparison.judge import identical
from foldproof.graph.module import get_attribute
from foldproof.graph.text import operator_name, source_of
from foldproof.operators import bind_arguments
from foldproof.torch_internals import OpOverload, tree_leaves

_MAX_TOLD = 2


def tell_arguments(reference: Graph, candidate: Graph) -> str:
    """Return a sentence on what differs if both graphs call the same operators on the same operands; else ``""``."""
    ours, theirs = (list(graph.module.graph.nodes) for graph in (reference, candidate))
    if [(n.op, n.target if n.op == "call_function" else "") for n in ours] != [
        (n.op, n.target if n.op == "call_function" else "") for n in theirs
    ]:
        return ""
    pairs = dict(zip(ours, theirs))
    told: list[str] = []
    for node, other in pairs.items():
        if [pairs[n] for n in node.all_input_nodes] != other.all_input_nodes:
            return ""
        told += _differences(reference, node, candidate, other)
    if not told:
        return ""
    more = f", and {len(told) - _MAX_TOLD} more" if len(told) > _MAX_TOLD else ""
    return f"{'; '.join(told[:_MAX_TOLD])}{more}"


def _differences(reference: Graph, node: fx.Node, candidate: Graph, other: fx.Node) -> Iterator[str]:
    if node.op == "get_attr":
        mine, its = (get_attribute(g.module, str(n.target)) for g, n in ((reference, node), (candidate, other)))
        if isinstance(mine, Tensor) and isinstance(its, Tensor) and not identical([mine], [its]):
            yield f"{node.target} has other values in the candidate"
    operator = node.target
    if not isinstance(operator, OpOverload):
        return
    mine, its = (bind_arguments(operator, n.args, n.kwargs) for n in (node, other))
    for name in dict.fromkeys([*mine, *its]):
        x, y = mine.get(name), its.get(name)
        if not _are_equal(x, y):
            where = f" at {source_of(node)}" if source_of(node) else ""
            yield f"{short(operator_name(node))}{where} has {name}={x} in the reference, {name}={y} in the candidate"


def _are_equal(x: Any, y: Any) -> bool:
    """True if no number in them differs; nodes stand for operands, which are compared elsewhere."""
    a, b = tree_leaves(x), tree_leaves(y)
    return len(a) == len(b) and all(
        isinstance(one, fx.Node) == isinstance(other, fx.Node)
        and (isinstance(one, fx.Node) or (type(one) is type(other) and _same(one, other)))
        for one, other in zip(a, b)
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))
