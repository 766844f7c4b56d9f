"""A loop nest or kernel as people read it, and the one behind a wrong value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx

from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Verdict

LABEL = "loop"
"""Key of a recorded node's `Loop` in its ``meta``."""
BUFFERS = "buffers"
"""Key of the names of the buffers whose contents a node is, at the end of a loop, in its ``meta``."""


@dataclass
class Loop:
    """A loop nest or kernel: the buffer that it computes, the nodes of the graph that it came from, and its text.

    ``trace`` is the stack trace of the last of these nodes, and ``source`` its line in the model's code.
    """

    buffer: str
    origins: tuple[str, ...]
    trace: str | None
    source: str | None
    lines: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name of the loop, with the nodes that it computes."""
        return f"the loop that computes {self.buffer}" + (f" (from {', '.join(self.origins)})" if self.origins else "")

    def describe(self) -> str:
        """Return the loop with its text."""
        return "\n".join([f"{self.title}:", *(f"    {line}" for line in self.lines)])


def find_loop(graph: fx.Graph, verdict: Verdict) -> Loop | None:
    """Return the loop of the first value that differs; None if the graph does not consist of loops.

    Where the verdict names a view, such as an output, it is the loop that computed the elements; where it names no
    value of the second program, the loop that came from the first program's node; where it names none, the loop of the
    output that differs.
    """
    difference, shown = verdict.difference, verdict.counterexample
    loops: dict[fx.Node, Loop] = {n: n.meta[LABEL] for n in graph.nodes if LABEL in n.meta}
    if not loops:
        return None
    if difference is not None and difference.after is not None:
        return _walk_back([n for n in graph.nodes if n.name == difference.after.node], loops)
    if difference is not None:
        wrong = {difference.node, *difference.region}
        return next((loop for loop in loops.values() if not wrong.isdisjoint(loop.origins)), None)
    outputs = [n for n in tree_leaves([*graph.nodes][-1].args) if isinstance(n, fx.Node)]
    return None if shown is None else _walk_back(outputs[shown.output : shown.output + 1], loops)


def _walk_back(reached: list[fx.Node], loops: Mapping[fx.Node, Loop]) -> Loop | None:
    for node in reached:
        if node in loops:
            return loops[node]
        reached += node.all_input_nodes
    return None
