"""The part of a graph that a pass changed, cut out of both graphs, so that only it has to be proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.snapshot import Interpreted, Snapshot, arguments, callable_name, target_name
from foldproof.graph.interpreter import Interpreter
from foldproof.log import log_caught
from foldproof.shadow import all_finite
from foldproof.torch_internals import tree_leaves


@dataclass(frozen=True)
class Region:
    """Two graphs with the same inputs, which differ where the whole graphs do.

    ``inputs`` are values that both graphs compute alike, taken from a run of the first; the outputs are the values that
    the unchanged rest of both graphs reads. Where the regions are the same function of their inputs, so are the whole
    graphs, by substitution along the order of the nodes. The converse does not hold: inputs may depend on each other.
    """

    before: fx.GraphModule
    after: fx.GraphModule
    inputs: tuple[Any, ...]


def changed_region(before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> Region | None:
    """The changed region of two graphs, or None where nothing can be cut off (or a node writes in place)."""
    if not (before.functional and after.functional):
        return None
    sides = [_Side(before, {n: n.name for n in before.graph.nodes})]
    sides.append(_Side(after, _names_of_values(sides[0], after)))
    same = {name for name, line in sides[1].lines.items() if sides[0].lines.get(name) == line}
    if not any(n.op.startswith("call_") and name in same for n, name in sides[0].names.items()):
        return None
    if any(_reads_layout(node) for side in sides for node in side.needed):
        return None
    while True:
        pairs = _results(sides, same)
        if not pairs:
            return None
        regions = [[n for n in side.needed if side.names[n] not in same and n.op != "output"] for side in sides]
        used: dict[str, fx.Node] = {}
        for side, region, results in zip(sides, regions, zip(*pairs)):
            read = [n for node in region for n in node.all_input_nodes] + list(results)
            used |= {side.names[n]: n for n in read if side.names[n] in same}
        if any(n.op == "placeholder" for region in regions for n in region):
            return None
        run = _run(sides[0], inputs, [name for name, node in used.items() if node.op != "get_attr"])
        if run is None:
            return None
        values, held = run
        # A proof would hold these at their values: what computes them belongs to the region.
        inside = [used[name] for name in values if name in held]
        if not inside:
            break
        for node in inside:
            name = sides[0].names.get(node) or sides[1].names[node]
            same.discard(name)
            inside += [n for n in sides[0].nodes[name].all_input_nodes if sides[0].names[n] in held & same]
    if not all(isinstance(x, Tensor) for x in values.values()):
        return None
    modules = []
    for side, region, results in zip(sides, regions, zip(*pairs)):
        graph = fx.Graph()
        made = {name: graph.placeholder(name) for name in values}
        for name, node in used.items():
            if node.op == "get_attr":
                made[name] = graph.create_node("get_attr", node.target, name=name)
        for node in region:
            made[side.names[node]] = graph.node_copy(node, lambda n: made[side.names[n]])
        graph.output([made[side.names[n]] for n in results])
        modules.append(Interpreted(side.snapshot.module, graph))
    return Region(modules[0], modules[1], tuple(values.values()))


class _Side:
    """One graph: its nodes by the names that both graphs share, and each as a line that tells all it does."""

    def __init__(self, snapshot: Snapshot, names: Mapping[fx.Node, str]) -> None:
        self.snapshot, self.names = snapshot, names
        inputs = {n: i for i, n in enumerate(snapshot.placeholders)}
        self.lines: dict[str, str] = {}
        for node, name in names.items():
            what = f"{node.op} {callable_name(node.target)}"
            if node.op in ("get_attr", "call_module"):
                what += f" {snapshot.identity(str(node.target))}"
            elif node.op == "placeholder":
                what = f"input {inputs[node]}"
            self.lines[name] = f"{what} {arguments(node, names)}"
        self.nodes = {name: node for node, name in names.items()}
        self.needed = _needed(snapshot.graph)
        self.end = next(n for n in snapshot.graph.nodes if n.op == "output")


def _names_of_values(before: _Side, after: Snapshot) -> dict[fx.Node, str]:
    """Names for *after*'s nodes: *before*'s for a value that it computes, too (passes that retrace rename)."""
    by_value: dict[str, str] = {}
    for node, value in before.snapshot.values.items():
        by_value.setdefault(value, before.names[node])
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in after.graph.nodes:
        name = by_value.get(after.values.get(node, ""))
        if name is not None and name not in taken:
            names[node] = name
            taken.add(name)
    for node in after.graph.nodes:
        if node not in names:
            name = node.name
            while name in taken:
                name += "_"
            names[node] = name
            taken.add(name)
    return names


def _needed(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that an output depends on, in order."""
    found: set[fx.Node] = set()
    stack = [n for n in graph.nodes if n.op == "output"]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return [n for n in graph.nodes if n in found]


def _results(sides: Sequence[_Side], same: set[str]) -> list[tuple[fx.Node, fx.Node]] | None:
    """What has to agree: values of one name that the unchanged rest reads, and outputs that are other nodes now."""
    read = [
        side.names[n]
        for side in sides
        for node in side.needed
        if side.names[node] in same
        for n in node.all_input_nodes
        if side.names[n] not in same
    ]
    read = list(dict.fromkeys(read))
    if any(name not in side.nodes for side in sides for name in read):
        return None
    pairs = [(sides[0].nodes[name], sides[1].nodes[name]) for name in read]
    first, second = (side.end for side in sides)
    if sides[0].names[first] in same:
        return pairs
    flat = [tree_leaves(end.args[0]) for end in (first, second)]
    if len(flat[0]) != len(flat[1]):
        return None
    for a, b in zip(*flat):
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            name = sides[0].names[a]
            if name != sides[1].names[b] or name not in same:
                pairs.append((a, b))
        elif a is not b and (isinstance(a, fx.Node) or isinstance(b, fx.Node) or a != b):
            return None
    return pairs


def _reads_layout(node: fx.Node) -> bool:
    """Whether a node depends on how its operand lies in memory, which no value tells."""
    return any(part in target_name(node.target) for part in ("stride", "storage_offset", "is_contiguous", "data_ptr"))


def _stands_for_all(x: Any) -> bool:
    """Whether a proof on this value speaks of all values of its shape."""
    return isinstance(x, Tensor) and x.dtype.is_floating_point and all_finite(x)


class _Done(Exception):
    """All that was wanted is there."""


def _run(side: _Side, inputs: Sequence[Any], wanted: Sequence[str]) -> tuple[dict[str, Any], set[str]] | None:
    """Values of nodes, from one run of the graph; and which nodes, of all that ran, a proof would hold at their values.

    None where the run fails.
    """
    missing = set(wanted)
    values: dict[str, Any] = {}
    held: set[str] = set()

    def watch(node: fx.Node, out: Any) -> None:
        name = side.names[node]
        if node.op not in ("placeholder", "get_attr") and not _stands_for_all(out):
            held.add(name)
        if name in missing:
            values[name] = out.detach().clone() if isinstance(out, Tensor) else out
            missing.discard(name)
            if not missing:
                raise _Done

    if not missing:
        return values, held
    given = [x.detach().clone() if isinstance(x, Tensor) else x for x in inputs]
    try:
        with torch.no_grad():
            Interpreter(side.snapshot.module, watch).run(*given)
    except _Done:
        pass
    except Exception as error:
        log_caught(error, "running a graph for the values at its changed region")
        return None
    return None if missing else ({name: values[name] for name in wanted}, held)
