"""The two halves of a joint graph, and the graph that calls one with the results of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from foldproof.auditing.snapshot import Snapshot
from foldproof.graph.module import InterpretedModule, get_attribute, set_attribute
from foldproof.graph.text import map_nodes
from foldproof.log import giving_up
from foldproof.program import as_program, copied
from foldproof.proof import run_on_copies
from foldproof.torch_internals import disable_current_modes, tree_leaves

PARTS = FORWARD, BACKWARD = "forward", "backward"
OPTIMIZER = "optimizer"
"""The part of an optimizer's step, which is compiled by itself."""


@dataclass(frozen=True)
class Half:
    """The forward or backward graph as the partitioner made it.

    ``given`` are inputs of it, None if there are none. ``names`` are those of its placeholders, which tell the halves
    of one or several graphs apart.
    """

    part: str
    snapshot: Snapshot
    names: tuple[str, ...]
    given: Sequence[Any] | None


def compose(forward: fx.GraphModule, backward: fx.GraphModule, results: int) -> fx.GraphModule:
    """Return the graph from inputs and cotangents to results and gradients.

    ``results`` is the number of outputs of the forward graph that are not saved for the backward.
    """
    root, graph = nn.Module(), fx.Graph()
    outputs, told = _inline(root, graph, forward, FORWARD, {})
    saved = dict(zip(_names(_output(forward).args[0]), outputs))
    gradients, more = _inline(root, graph, backward, BACKWARD, saved)
    made = graph.output((*outputs[:results], *gradients))
    made.meta["desc"] = [*told[:results], *more]
    return InterpretedModule(root, graph)


def _inline(
    root: nn.Module, graph: fx.Graph, half: fx.GraphModule, name: str, known: Mapping[str, Any]
) -> tuple[list[Any], Sequence[Any]]:
    """Copy the nodes of a half and its attributes, these below ``name``; return outputs and their descriptions."""
    made: dict[fx.Node, Any] = {}
    for node in half.graph.nodes:
        if node.op == "output":
            return list(map_nodes(node.args[0], made.__getitem__)), node.meta.get("desc") or [None] * len(node.args[0])
        if node.op == "placeholder" and node.name in known:
            made[node] = known[node.name]
            continue
        made[node] = graph.node_copy(node, made.__getitem__)
        if node.op in ("get_attr", "call_module"):
            made[node].target = f"of_{name}.{node.target}"
            set_attribute(root, made[node].target, get_attribute(half, str(node.target)))
    raise AssertionError("a graph has an output")


def split(
    modules: tuple[fx.GraphModule, fx.GraphModule],
    snapshots: tuple[Snapshot, Snapshot],
    given: Sequence[Any],
    cotangents: Mapping[str, Any],
) -> tuple[Half, Half]:
    """Return both halves with their inputs: the backward's are the results of the forward, and the ``cotangents``."""
    forward, backward = snapshots
    saved: Sequence[Any] | None = None
    with giving_up("running the forward graph"), disable_current_modes():
        outcome = run_on_copies(as_program(forward.module), *copied((tuple(given), {})))
        values = dict(zip(_names(_output(forward.module).args[0]), outcome.outputs)) | dict(cotangents)
        saved = [values[node.name] for node in backward.placeholders]
    first, second = map(list_names, modules)
    return Half(FORWARD, forward, first, given), Half(BACKWARD, backward, second, saved)


def list_names(half: fx.GraphModule) -> tuple[str, ...]:
    """Return the names of a graph's inputs."""
    return tuple(node.name for node in half.graph.nodes if node.op == "placeholder")


def _output(half: fx.GraphModule) -> fx.Node:
    """Return the node of a graph's outputs."""
    found: fx.Node = next(n for n in half.graph.nodes if n.op == "output")
    return found


def _names(outputs: Any) -> list[str]:
    return [x.name if isinstance(x, fx.Node) else "" for x in tree_leaves(outputs)]
