"""The changed region: the part of a graph that a pass changed, cut out of both graphs, so that the proof stays small.

Claim: if the two regions are the same function of their inputs, the two graphs are the same function of theirs.
`foldproof.graph.region` gives the argument. It requires that the nodes outside are paired, and that certain nodes are
inside. This module ensures both:

1. *Names pair the nodes.* Passes keep the names of the nodes that they leave alone. If a graph was traced again, a node
   takes the name of the earlier node that computes the same expression of the inputs. Names are a guess; the proof
   relies on them only after the check in step 2.
2. *A name is unchanged* if it stands in both graphs for the same operator with the same attributes, on operands of the
   same names. Constants and modules are the same only if they are the same object with the same content.
3. *The region is everything else that an output depends on*, in each graph separately. Its inputs are the unchanged
   values that it reads. Its results are the values that unchanged nodes read in both graphs under one name, and the
   outputs of the graph that are different nodes now. If a result has no counterpart, nothing is cut.
4. *Unchanged values are equal in both graphs*, by induction along the later graph: the operands of an unchanged node
   are unchanged nodes, equal by induction, or results of the region, equal by the proof, because the inputs that they
   depend on come earlier.
5. *No node writes to memory, draws random numbers or reads layouts*; otherwise nothing is cut. So only values matter.
6. *Inputs have to stand for all values.* A proof would hold integers, booleans and infinities at their values, so the
   region grows backwards over them until its inputs are finite floating-point values, or inputs of the graph, which a
   proof of the whole graph would hold, too. Growing is always sound: the argument still holds if an unchanged node is
   counted as changed. It grows over values of constants alone, too: a clip with any limits is no clip with these.

Unequal regions do not refute the pass, because their inputs may depend on each other: the caller then tries the whole
graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot
from foldproof.graph.diff import NamedGraph, share_names
from foldproof.graph.interpreter import Interpreter
from foldproof.graph.module import InterpretedModule
from foldproof.graph.region import collect_dependencies, cut_region
from foldproof.graph.text import target_name
from foldproof.log import log_caught
from foldproof.shadow import all_finite
from foldproof.torch_internals import tree_leaves


@dataclass(frozen=True)
class ChangedRegion:
    """Two graphs with the same inputs: the parts in which the whole graphs differ.

    ``inputs`` are values that both whole graphs compute, taken from a run of the first.
    """

    before: fx.GraphModule
    after: fx.GraphModule
    inputs: tuple[Any, ...]


def cut_changed_region(before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> ChangedRegion | None:
    """Cut out the changed region of two graphs; None if that is impossible, or would leave nothing outside.

    Args:
        before, after: the graphs.
        inputs: example inputs of both.
    """
    if not (before.functional and after.functional):
        return None
    named = share_names(before.label(), after.label(), (before.values, after.values))
    first, second = _Side(before, named[0]), _Side(after, named[1])
    sides = first, second
    if any(_reads_layout(node) for side in sides for node in side.needed):
        return None
    same = {name for name, line in second.lines.items() if first.lines.get(name) == line}
    if not any(first.nodes[name].op.startswith("call_") for name in same):
        return None
    while True:
        border = _find_border(sides, same)
        values = None if border is None else _run(first, inputs, border.inputs)
        if border is None or values is None:
            return None
        grown = _find_held(first, values, same, border.inputs) | first.constants.intersection(border.inputs)
        if not grown:
            break
        same -= grown  # the region is larger now and reads other values, so its border has to be found again
    given = [values.of[name] for name in border.inputs]
    if not all(isinstance(x, Tensor) for x in given):
        return None
    one, other = (_cut(side, results, same, border.inputs) for side, results in zip(sides, zip(*border.results)))
    return ChangedRegion(one, other, tuple(given))


@dataclass(frozen=True)
class _Border:
    """Names of the unchanged values that the regions read, and the pairs of their results."""

    inputs: tuple[str, ...]
    results: list[tuple[fx.Node, fx.Node]]


def _find_border(sides: Sequence[_Side], same: set[str]) -> _Border | None:
    """Find the border of the regions; None if a result has no counterpart, or an input of the graph is in a region."""
    pairs = _pair_results(sides, same)
    if not pairs:
        return None
    used: dict[str, None] = {}
    for side, results in zip(sides, zip(*pairs)):
        region = side.changed(same)
        if any(node.op == "placeholder" for node in region):
            return None
        read = [*(n for node in region for n in node.all_input_nodes), *results]
        names = [side.names[n] for n in read if n.op != "get_attr"]
        used |= dict.fromkeys(name for name in names if name in same)
    return _Border(tuple(used), pairs)


def _find_held(side: _Side, values: _Values, same: set[str], inputs: Sequence[str]) -> set[str]:
    """Names of the inputs that a proof would hold at their values, and of such values that they are computed from."""
    pending = [name for name in inputs if name in values.held]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            operands = [side.names[n] for n in side.nodes[name].all_input_nodes]
            pending += [operand for operand in operands if operand in values.held & same]
    return found


def _cut(side: _Side, results: Sequence[fx.Node], same: set[str], inputs: Sequence[str]) -> fx.GraphModule:
    constants = {n: str(n.target) for name, n in side.nodes.items() if n.op == "get_attr" and name in same}
    given = [side.nodes[name] for name in inputs]
    region = cut_region(
        side.changed(same), list(results), inputs=given, constants=constants, name=side.names.__getitem__
    )
    return InterpretedModule(side.module, region.graph)


class _Side:
    """One of the two graphs, with its nodes under the names that both graphs share."""

    def __init__(self, snapshot: Snapshot, named: NamedGraph) -> None:
        self.module = snapshot.module
        self.names, self.nodes, self.lines = named.names, named.nodes, named.lines
        self.end = snapshot.graph.output_node()
        read = set(collect_dependencies([self.end]))
        self.needed = [n for n in snapshot.graph.nodes if n in read]
        varying: set[fx.Node] = set()
        for node in snapshot.graph.nodes:
            if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
                varying.add(node)
        self.constants = {self.names[n] for n in self.needed if n not in varying and n.op != "get_attr"}

    def changed(self, same: set[str]) -> list[fx.Node]:
        """List the nodes that an output depends on and whose names are not in ``same``, without the output itself."""
        return [n for n in self.needed if self.names[n] not in same and n is not self.end]


def _pair_results(sides: Sequence[_Side], same: set[str]) -> list[tuple[fx.Node, fx.Node]] | None:
    """Pair the values that have to agree: those that unchanged nodes read by one name, and outputs that are new nodes.

    None if a value has no counterpart.
    """
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
    """True if the node depends on the layout of its operand in memory, which values don't show."""
    return any(part in target_name(node.target) for part in ("stride", "storage_offset", "is_contiguous", "data_ptr"))


def _stands_for_all(x: Any) -> bool:
    """True if a proof with this value as input holds for all values of its shape."""
    return isinstance(x, Tensor) and x.dtype.is_floating_point and all_finite(x)


class _Done(Exception):
    """Ends a run once all wanted values are known."""


@dataclass(frozen=True)
class _Values:
    """Values ``of`` some nodes, and the names of the earlier nodes that a proof would hold at their values."""

    of: Mapping[str, Any]
    held: set[str]


def _run(side: _Side, inputs: Sequence[Any], wanted: Sequence[str]) -> _Values | None:
    """Run the graph until the values of the wanted nodes are known; None if the run fails."""
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

    if missing:
        given = [x.detach().clone() if isinstance(x, Tensor) else x for x in inputs]
        try:
            with torch.no_grad():
                Interpreter(side.module, watch).run(*given)
        except _Done:
            pass
        except Exception as error:
            log_caught(error, "running a graph for the values at its changed region")
            return None
    return None if missing else _Values(values, held)
