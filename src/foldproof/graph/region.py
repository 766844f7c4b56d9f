"""Cutting a region out of a graph, so that it can be run, proved or compiled by itself.

A rewrite touches a few nodes of a large graph, and it is enough to prove those, if they are cut out correctly. Let R be
nodes of the graph before and R' nodes of the graph after, and pair the nodes outside: the same operator with the same
attributes, on paired operands or on corresponding results of R and R'. If R and R' are the same function of their
inputs, each paired value is the same in both graphs. The proof is by induction along the order of the graph after.
Let all earlier paired values be equal. Then the inputs on which a result of R' depends are equal. R and R' are equal
as functions, for *all* inputs, so they are equal at the values in the graph before. So the result equals that of R, and
the nodes that read it are equal, too. The graph before needs no such argument: its values are given.

The argument uses each of these, and a caller who cuts a region vouches for them:
The argument has the following premises, and the caller who cuts a region is responsible for them:
* **Every value read outside is a result.** A value missing from the results could change unnoticed.
* **The proof holds for all values of the inputs.** A proof varies finite floating-point tensors, which carry residues.
  Integers, booleans, indices and masks with infinities keep their values at the example, and so do the decisions based
  on them. Inside a whole program, these depend on its inputs; for a region that begins behind them, a proof would hold
  for one decision only. So the region has to include the computation of such values, back to the inputs of the
  program, which the claim lists as held.
* **Only values cross the border.** The memory layout of a tensor is no value: a node that asks for strides, storage
  offsets or contiguity cannot be cut from the node that determines its operand's layout.
* **Nobody writes.** A node that writes to memory, draws random numbers or updates statistics is no function of its
  operands, and its place in the order matters. Graphs are not cut between such nodes and the memory they touch.
* **Sizes are part of the claim.** Numbers computed from shapes become constants, and the proof holds at the shapes of
  the example.

The converse does not hold. The inputs of a region may depend on each other, so that two programs can be equal although
their regions are not. A region that is refuted requires a look at the whole program, or the rewrite is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node


@dataclass(frozen=True)
class Region:
    """Some nodes as a graph of their own.

    ``copies`` maps each node inside, and each operand from outside, to its counterpart in `graph` (or to its value).
    ``inputs`` are the nodes behind the placeholders, in their order.
    """

    graph: Graph
    copies: dict[Node, Any]
    inputs: tuple[Node, ...]


def cut_region(
    nodes: Sequence[Node],
    results: Node | Sequence[Node],
    *,
    inputs: Iterable[Node] = (),
    constants: Mapping[Node, str] | None = None,
    known: Mapping[Node, Any] | None = None,
    name: Callable[[Node], str] = lambda node: node.name,
) -> Region:
    """Copy nodes into a graph of their own.

    Args:
        nodes: the nodes of the region, each after those that it reads.
        results: the nodes whose values are read outside; the graph returns their tuple. For a single node that is not
            in a sequence, the graph returns its bare value.
        inputs: the first placeholders, read or not, so that two regions have the same ones. Operands that are in
            neither ``nodes`` nor any other argument follow.
        constants: operands that become ``get_attr`` nodes, with the names of the attributes.
        known: operands to replace by a value.
        name: the name of a placeholder, from the node behind it.
    """
    graph = Graph()
    copies: dict[Node, Any] = {}
    inside, constants, known = set(nodes), constants or {}, known or {}
    outside = dict.fromkeys(x for node in nodes for x in node.all_input_nodes if x not in inside)
    outside |= dict.fromkeys(x for x in ([results] if isinstance(results, Node) else results) if x not in inside)
    read = [x for x in outside if x not in constants and x not in known]
    for node in dict.fromkeys([*inputs, *read]):
        copies[node] = graph.placeholder(name(node))
    for node in outside:
        if node in known:
            copies[node] = known[node]
        elif node in constants:
            copies[node] = graph.get_attr(constants[node])
    behind = tuple(node for node, copy in copies.items() if isinstance(copy, Node) and copy.op == "placeholder")
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[results] if isinstance(results, Node) else tuple(copies[node] for node in results))
    return Region(graph, copies, behind)


def collect_dependencies(roots: Iterable[Node], stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """Return ``roots`` and all nodes that they depend on, each after those that it reads.

    Args:
        stop: excludes the nodes for which it is true, with everything that only they depend on.
    """
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done or stop(node):
                continue
            if ready:
                done.add(node)
                order.append(node)
                continue
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.all_input_nodes) if operand not in done)
    return order
