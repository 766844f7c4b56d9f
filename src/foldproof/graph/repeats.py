"""Parts of a graph that repeat: layers of the same operators, each with parameters of its own.

A part is a run of consecutive nodes, and the next part is the same run once more. A part reads

* its own nodes,
* nodes of the part before, at the same places in each part (*carried*, such as the hidden state); the first part reads
  nodes from before all parts instead (*given*),
* nodes from before all parts, the same ones in each part (*outer*, such as a mask),
* placeholders and attributes (*sources*): the same ones, or others, such as parameters.

Nodes after the last part read carried nodes of the last part alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node, map_arg

from foldproof.graph.module import get_attribute
from foldproof.graph.nodes import arguments, is_getitem, operator_of, short_name
from foldproof.operators import is_repeatable
from foldproof.operators.functions import is_functional_function, is_functional_method
from foldproof.torch_internals import copied_graph

_SOURCES = ("placeholder", "get_attr")
_SHORTEST = 2
"""Smallest number of nodes in a part."""
_MAX_TRIES = 16
"""Largest number of runs that are looked at, which bounds the time for a long graph."""


@dataclass(frozen=True)
class Repeats:
    """``parts`` of equal length that repeat.

    Attributes:
        parts: their nodes.
        carried: places in a part of the nodes that the next one reads.
        given: the nodes that the first part reads instead.
        reads: the places of operands in the first part that stand for a carried node, as (node, operand, number).
        outer: nodes from before all parts that each part reads.
        sources: the placeholders and attributes that each part reads, in the order of its operands.
    """

    parts: tuple[tuple[Node, ...], ...]
    carried: tuple[int, ...]
    given: tuple[Node, ...]
    reads: tuple[tuple[Node, int, int], ...]
    outer: tuple[Node, ...]
    sources: tuple[tuple[Node, ...], ...]

    def first(self, count: int) -> Repeats:
        """Return the first ``count`` parts."""
        return replace(self, parts=self.parts[:count], sources=self.sources[:count])


def find_repeats(graph: Graph) -> list[list[Repeats]]:
    """Return the repeating parts of ``graph`` in order, each as a list of ways to cut it into parts.

    A way may begin with a later part, too. The nodes of a part call repeatable operators; a graph that calls modules
    has no parts.
    """
    nodes = [node for node in graph.nodes if node.op not in (*_SOURCES, "output")]
    if any(node.op not in ("call_function", "call_method") for node in nodes):
        return []
    place = {node: i for i, node in enumerate(nodes)}
    last_use = torch.tensor([max((place.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes])
    found: list[tuple[int, int, list[Repeats]]] = []
    tries = 0
    for start, stop, period in _runs(list(map(_skeleton, nodes))):
        if any(start < other[1] and other[0] < stop for other in found):
            continue
        tries += 1
        if tries > _MAX_TRIES:
            break
        ways = [
            made
            for first in _narrowest(start, stop, period, last_use)
            if (made := _cut(nodes, place, first, period, (stop - first) // period)) is not None
        ]
        if ways:
            found.append((start, stop, ways))
    return [ways for _, _, ways in sorted(found, key=lambda one: one[0])]


def arrange(module: GraphModule) -> GraphModule:
    """Return a copy of a graph of repeatable nodes in an order in which parts show.

    Nodes that depend on no source come first, each once, since parts may share them. Functions of one source, such as
    views of parameters, stand before their first reader.
    """
    graph, _ = copied_graph(module)
    nodes = [node for node in graph.nodes if node.op == "call_function" and is_repeatable_node(node)]
    _put_before_readers(_put_constants_first(graph, nodes))
    return GraphModule(module, graph)


def _put_constants_first(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Return the other nodes."""
    others = list[Node]()
    known, shared = dict[tuple[Any, str], Node](), set[Node]()
    anchor = next(node for node in graph.nodes if node.op not in _SOURCES)
    for node in nodes:
        if not shared.issuperset(node.all_input_nodes):
            others.append(node)
            continue
        anchor = anchor.next if node is anchor else anchor
        first = known.setdefault((node.target, repr((node.args, node.kwargs))), node)
        if first is node:
            shared.add(node)
            anchor.prepend(node)
        else:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
    return others


def _put_before_readers(nodes: Sequence[Node]) -> None:
    of_source = set[Node]()
    for node in nodes:
        operands = node.all_input_nodes
        if len(operands) == 1 and (operands[0].op in _SOURCES or operands[0] in of_source):
            of_source.add(node)
    for node in reversed(nodes):
        if node in of_source and node.users:
            min(node.users).prepend(node)


def _skeleton(node: Node) -> tuple[Any, str]:
    """Return what a node does, without its operands, but for the shapes of sources."""

    def form(x: Node) -> str:
        if x.op not in _SOURCES:
            return "%"
        value = _attribute(x) if x.op == "get_attr" else x.meta.get("val")
        return f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else "%"

    return node.target, repr(map_arg((node.args, node.kwargs), form))


def _runs(keys: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Return the runs of ``keys`` that repeat as (start, stop, period), those that repeat most of them first."""
    number: dict[Any, int] = {}
    code = torch.tensor([number.setdefault(key, len(number)) for key in keys])
    found = []
    for period in range(_SHORTEST, len(keys) // 2 + 1):
        differs = (code[:-period] != code[period:]).nonzero().flatten()
        ends = torch.cat([torch.tensor([-1]), differs, torch.tensor([len(keys) - period])])
        long = (ends.diff() > period).nonzero().flatten()
        found += [(int(ends[i]) + 1, int(ends[i + 1]) + period, period) for i in long.tolist()]
    return sorted(found, key=lambda run: (run[1] - run[0]) // run[2] * run[2] - run[2], reverse=True)


def _narrowest(start: int, stop: int, period: int, last_use: Tensor) -> list[int]:
    """Return the first nodes of first parts for which fewest values pass from a part to the next one."""
    passing = {
        first: int((last_use[first : first + period] >= first + period).sum())
        for first in range(start, stop - 2 * period + 1)
    }
    least = min(passing.values(), default=0)
    return [first for first, number in passing.items() if number == least]


def _operands(node: Node) -> list[Node]:
    """Return the operands in order, repeated ones, too."""
    found: list[Node] = []

    def note(x: Node) -> Node:
        found.append(x)
        return x

    map_arg((node.args, node.kwargs), note)
    return found


@dataclass(frozen=True)
class _Read:
    """An operand: number ``operand`` of ``node`` is ``value``, which ``kind`` and ``at`` tell within each part."""

    node: Node
    operand: int
    value: Node
    kind: str
    """``own``, ``previous`` (a node of the part before), ``outer``, ``source``, or ``elsewhere``."""
    at: Any = None

    def repeats(self, other: _Read) -> bool:
        return self.kind != "elsewhere" and (self.kind, self.at) == (other.kind, other.at)


def _cut(nodes: Sequence[Node], place: dict[Node, int], first: int, period: int, count: int) -> Repeats | None:
    """Return ``count`` parts of ``period`` nodes from ``first``; None if they are no parts, or do not repeat."""
    stop = first + count * period
    parts = [tuple(nodes[at : at + period]) for at in range(first, stop, period)]
    if not all(map(is_repeatable_node, parts[0])):
        return None
    reads = [list(_reads(part, first + j * period, place, first)) for j, part in enumerate(parts)]
    if any(len(one) != len(reads[1]) for one in reads):
        return None
    if not all(a.repeats(b) for later in reads[1:] for a, b in zip(reads[1], later)):
        return None
    given, carried, outer = dict[int, Node](), list[tuple[_Read, int]](), dict[Node, None]()
    for here, then in zip(reads[0], reads[1]):
        if then.kind == "previous":
            if here.kind not in ("outer", "source") or given.setdefault(then.at, here.value) is not here.value:
                return None
            carried.append((here, then.at))
        elif not here.repeats(then):
            return None
        elif then.kind == "outer":
            outer.setdefault(then.at)
    order = sorted(given)
    exits = {i - (stop - period) for i in range(first, stop) if any(place.get(u, stop) >= stop for u in nodes[i].users)}
    if not exits <= given.keys():
        return None
    return Repeats(
        parts=tuple(parts),
        carried=tuple(order),
        given=tuple(given[at] for at in order),
        reads=tuple((read.node, read.operand, order.index(at)) for read, at in carried),
        outer=tuple(outer),
        sources=tuple(tuple(read.value for read, then in zip(one, reads[1]) if then.kind == "source") for one in reads),
    )


def _attribute(node: Node) -> Any:
    owner = node.graph.owning_module
    return None if owner is None else get_attribute(owner, str(node.target))


def is_repeatable_node(node: Node) -> bool:
    """Return True if a node returns the same for the same operands, and does nothing else."""
    operator = operator_of(node)
    if operator is not None:
        return is_repeatable(operator, arguments(node))
    if short_name(node).startswith(("empty", "new_empty")):  # nobody wrote what they hold
        return False
    if node.op == "call_method":
        return is_functional_method(str(node.target))
    return is_getitem(node) or (callable(node.target) and is_functional_function(node.target, node.args, node.kwargs))


def _reads(part: Sequence[Node], start: int, place: dict[Node, int], first: int) -> Iterator[_Read]:
    for node in part:
        for i, x in enumerate(_operands(node)):
            where = place.get(x, -1)
            if x.op in _SOURCES:
                yield _Read(node, i, x, "source")
            elif where < first:
                yield _Read(node, i, x, "outer", x)
            elif where >= start:
                yield _Read(node, i, x, "own", where - start)
            else:
                near = where >= start - len(part)
                yield _Read(node, i, x, "previous" if near else "elsewhere", where - start + len(part))
