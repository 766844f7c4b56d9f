"""Cutting a region out of a graph, so that it can be run, proved or compiled by itself.

A rewrite touches a few nodes of a large graph. It is enough to prove those few, if they are cut out in the right way.
Let R be some nodes of the graph before and R' some nodes of the graph after, and let the nodes outside be paired: the
same operator with the same attributes, on paired operands or on corresponding results of R and R'. If R and R' are the
same function of their inputs, each paired value is the same in both graphs. This follows by induction along the order
of the graph after: let all earlier paired values be equal. Then the inputs on which a result of R' depends are equal;
as the functions are equal for *all* inputs, they are equal at the values that occur in the graph before; so the result
is equal to that of R, and whatever reads it is equal, too. No argument about the graph before is needed: its values
are there already.

The argument uses each of these, and a caller who cuts a region vouches for them:

* **Every value that is read outside is a result.** A value that is left out of the results may change unseen.
* **The proof speaks of all values of the inputs.** A proof varies finite floating-point tensors, which carry residues.
  Integers, booleans, indices and masks with infinities are held at the values that they have at the example, and so
  are the decisions that they make. Inside a whole program these depend on its inputs; if the region begins behind them,
  a proof holds for one decision only. So whatever computes such a value belongs to the region, up to the inputs of the
  program, of which the claim says that they are held.
* **Values are all that passes the border.** How a tensor lies in memory is no value: a node that asks for strides,
  storage offsets or contiguity can't be cut from what lays its operand out.
* **Nobody writes.** A node that writes to memory, draws random numbers or updates statistics is no function of its
  operands, and its place in the order counts. Graphs with such nodes are not cut between them and what they touch.
* **Sizes are part of the claim.** Numbers that are computed from shapes become constants, and the proof holds at the
  shapes of the example.

The converse does not hold. The inputs of a region may depend on each other, so that two programs can be equal though
their regions are not: what is refuted on a region has to be looked at as a whole, or the rewrite has to be withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node


@dataclass(frozen=True)
class Region:
    """Some nodes as a graph of their own. ``copies`` maps each node that was met to what stands for it in `graph`.

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
        results: the nodes whose values are read outside, of which the graph puts out a tuple; or the only one, for a
            graph that puts out its bare value.
        inputs: the first placeholders, read or not, so that two regions get the same ones. Operands that are neither
            in ``nodes`` nor in any other argument follow.
        constants: operands that become ``get_attr`` nodes, with the names of the attributes.
        known: operands that are replaced by a value.
        name: names a placeholder after the node behind it.
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
    """The nodes that ``roots`` depend on, and ``roots``, each after those that it reads.

    Args:
        stop: nodes for which it is true are left out, with all that only they depend on.
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
