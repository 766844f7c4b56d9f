"""The difference of two graphs: nodes that compute the same under any names, and the others."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from foldproof.digest import digest
from foldproof.graph.module import get_attribute
from foldproof.graph.text import Verbatim, identify_target, map_nodes, operator_name, write_arguments

MAX_HOPS = 100
"""Largest number of nodes in a search for the origin of a value that the other graph lacks."""


@dataclass(frozen=True)
class LabelledGraph:
    """A graph with labels for its inputs and constants, and for the modules that it calls.

    Two graphs are comparable if equal labels mean the same thing in both.
    """

    graph: fx.Graph
    leaves: Mapping[fx.Node, str]
    modules: Mapping[str, Hashable]


@dataclass(frozen=True)
class GraphDiff:
    """The calls in each of two graphs without an equal in the other."""

    only_before: frozenset[fx.Node]
    only_after: frozenset[fx.Node]


def label_by_content(program: ExportedProgram | fx.GraphModule) -> LabelledGraph:
    """Label a program's inputs by position, its constants and called modules by content."""
    called = {str(n.target) for n in program.graph.nodes if n.op == "call_module"}
    return LabelledGraph(program.graph, _leaves(program), {name: _module(_attribute(program, name)) for name in called})


def diff_graphs(before: LabelledGraph, after: LabelledGraph) -> GraphDiff:
    """Return the calls in each graph that have no equal in the other.

    Two calls are equal if they call the same operator with the same attributes on equal operands. To keep one
    difference from marking all nodes after it, two operands without an equal count as equal, and a single one counts
    as its nearest origin with an equal.
    """
    mine, theirs = _Side(before), _Side(after)
    waiting: dict[Hashable, list[fx.Node]] = defaultdict(list)
    for node in theirs.calls:
        waiting[theirs.call(node)].append(node)
    for number, node in enumerate(mine.calls):
        alike = waiting[mine.call(node)]
        found = next((n for n in alike if _read_the_same(mine, node, theirs, n)), None)
        if found is not None:
            alike.remove(found)
            mine.equal[node] = theirs.equal[found] = number
    return GraphDiff(mine.without_equal(), theirs.without_equal())


@dataclass(frozen=True)
class NamedGraph:
    """A graph under names that another graph shares.

    ``names`` maps nodes to names, ``nodes`` names to nodes, and ``lines`` names to descriptions. Descriptions are equal
    in two graphs for the same operator (the same function, not only one of its name) with the same attributes, on
    operands of the same names.
    """

    names: Mapping[fx.Node, str]
    nodes: Mapping[str, fx.Node]
    lines: Mapping[str, str]


def share_names(
    before: LabelledGraph, after: LabelledGraph, values: tuple[Mapping[fx.Node, str], Mapping[fx.Node, str]]
) -> tuple[NamedGraph, NamedGraph]:
    """Give nodes of two graphs the same name if they compute the same value; others keep their own names.

    Args:
        before, after: the graphs.
        values: for each graph, digests of its nodes as expressions of the inputs, equal for equal expressions.
    """
    first = {node: node.name for node in before.graph.nodes}
    by_value: dict[str, str] = {}
    for node, value in values[0].items():
        by_value.setdefault(value, first[node])
    second: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in after.graph.nodes:
        name = by_value.get(values[1].get(node, ""))
        if name is not None and name not in taken:
            second[node] = name
            taken.add(name)
    for node in after.graph.nodes:
        if node not in second:
            name = node.name
            while name in taken:
                name += "_"
            second[node] = name
            taken.add(name)
    return _named(before, first), _named(after, second)


def _named(labelled: LabelledGraph, names: Mapping[fx.Node, str]) -> NamedGraph:
    lines = {}
    for node, name in names.items():
        if node in labelled.leaves:
            what = f"{node.op} {labelled.leaves[node]}"
        elif node.op == "call_module":
            what = f"{node.op} {labelled.modules[str(node.target)]}"
        else:
            what = f"{node.op} {identify_target(node.target)}"
        lines[name] = f"{what} {write_arguments(node, names)}"
    return NamedGraph(names, {name: node for node, name in names.items()}, lines)


def align_nodes(before: Sequence[fx.Node], after: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Pair nodes of two graphs that call the same operator with results of the same shape, in the order of both.

    Constants are ignored, so that programs with other weights can be aligned, too.
    """
    first, second = ([_token(node) for node in nodes] for nodes in (before, after))
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return {before[block.a + i]: after[block.b + i] for block in blocks for i in range(block.size)}


def _token(node: fx.Node) -> Hashable:
    value = node.meta.get("val")
    return operator_name(node), tuple(map(str, value.shape)) if isinstance(value, Tensor) else None


def _read_the_same(mine: _Side, node: fx.Node, theirs: _Side, other: fx.Node) -> bool:
    for one, another in zip(_operands(node), _operands(other), strict=True):
        labels = mine.label(one), theirs.label(another)
        if labels[0] != labels[1] and (None not in labels or mine.origin(one) != theirs.origin(another)):
            return False
    return True


class _Side:
    """One of the graphs. ``equal`` numbers the calls that have an equal; equals have the same number."""

    def __init__(self, given: LabelledGraph) -> None:
        self.calls = [n for n in given.graph.nodes if n.op not in ("placeholder", "get_attr", "output")]
        self.equal: dict[fx.Node, int] = {}
        self._leaves, self._modules = given.leaves, given.modules

    def without_equal(self) -> frozenset[fx.Node]:
        return frozenset(n for n in self.calls if n not in self.equal)

    def call(self, node: fx.Node) -> Hashable:
        """Return the operator and its arguments, with labels for inputs and constants and a blank for each call."""

        def named(operand: fx.Node) -> Any:
            return Verbatim(self._leaves.get(operand, "a call"))

        return self._callee(node), repr(map_nodes((node.args, node.kwargs), named))

    def _callee(self, node: fx.Node) -> Hashable:
        if node.op == "call_module":
            return self._modules[str(node.target)]
        return operator_name(node) if node.op == "call_function" else f"method {node.target}"

    def label(self, node: fx.Node) -> Hashable:
        """Return a label that is valid in both graphs: for a call its number, None for a call without an equal."""
        return self._leaves.get(node, self.equal.get(node))

    def origin(self, node: fx.Node) -> Hashable:
        """Return the label of the value, or of its nearest origin with a label."""
        for _ in range(MAX_HOPS):
            operands = _operands(node)
            if self.label(node) is not None or not operands:
                break
            node = operands[0]
        return self.label(node)


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the operands, repetitions included."""
    found: list[fx.Node] = []

    def note(operand: fx.Node) -> fx.Node:
        found.append(operand)
        return operand

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def _leaves(program: ExportedProgram | fx.GraphModule) -> dict[fx.Node, str]:
    names: dict[str, str] = {}
    if isinstance(program, ExportedProgram):
        specs = program.graph_signature.input_specs
        names = {str(s.arg.name): s.target for s in specs if s.kind is not InputKind.USER_INPUT and s.target}
    places = iter(range(len(program.graph.nodes)))
    found: dict[fx.Node, str] = {}
    for node in program.graph.nodes:
        if node.name in names:
            found[node] = _content(_held(program, names[node.name]))
        elif node.op == "placeholder":
            found[node] = f"input {next(places)}"
        elif node.op == "get_attr":
            found[node] = _content(_attribute(program, str(node.target)))
    return found


def _module(module: nn.Module) -> Hashable:
    return repr(module), tuple(_content(x) for x in module.state_dict().values())


def _held(program: Any, name: str) -> Any:
    return program.state_dict.get(name, program.constants.get(name))


def _attribute(program: ExportedProgram | fx.GraphModule, path: str) -> Any:
    return get_attribute(program.graph_module if isinstance(program, ExportedProgram) else program, path)


def _content(value: Any) -> str:
    if isinstance(value, fx.GraphModule):
        return f"graph {value.graph}"
    if not isinstance(value, Tensor):
        return f"constant {type(value).__name__} {value!r}"
    try:
        content = digest([value])
    except (RuntimeError, TypeError):  # sparse tensors, and subclasses without memory
        content = f"object {id(value)}"
    return f"constant {value.dtype} {tuple(value.shape)} {content}"
