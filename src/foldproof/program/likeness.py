"""Which nodes of two programs compute the same, whatever they are called: for people who look at both side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from foldproof.digest import digest
from foldproof.program.nodes import operator_name

FAR = 100
"""So many nodes that the other graph has not are followed in search of one that it has."""


@dataclass(frozen=True)
class Known:
    """A graph, and what its inputs and constants, and the modules that it calls, are known by in another, too."""

    graph: fx.Graph
    leaves: Mapping[fx.Node, str]
    modules: Mapping[str, Hashable]


def known(program: ExportedProgram | fx.GraphModule) -> Known:
    """A program by itself: inputs are known by their place, constants and modules by their content."""
    called = {str(n.target) for n in program.graph.nodes if n.op == "call_module"}
    return Known(program.graph, _leaves(program), {name: _module(_attribute(program, name)) for name in called})


def unlike(before: Known, after: Known) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """The calls in each graph that have no equal in the other.

    Two calls are equal if they call the same operator with the same attributes on equal operands. So that one
    difference does not mark all that follows from it, two operands without an equal count as equal, and a single one as
    what it was made of.
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
    return mine.without_equal(), theirs.without_equal()


def _read_the_same(mine: _Side, node: fx.Node, theirs: _Side, other: fx.Node) -> bool:
    for one, another in zip(_operands(node), _operands(other), strict=True):
        known = mine.known(one), theirs.known(another)
        if known[0] != known[1] and (None not in known or mine.lasting(one) != theirs.lasting(another)):
            return False
    return True


class _Side:
    """One of the graphs; ``equal`` has a number for each call that has an equal, and the same one for that."""

    def __init__(self, given: Known) -> None:
        self.calls = [n for n in given.graph.nodes if n.op not in ("placeholder", "get_attr", "output")]
        self.equal: dict[fx.Node, int] = {}
        self._leaves, self._modules = given.leaves, given.modules

    def without_equal(self) -> frozenset[fx.Node]:
        return frozenset(n for n in self.calls if n not in self.equal)

    def call(self, node: fx.Node) -> Hashable:
        """The operator and its arguments, inputs and constants by what they are known by, and calls as blanks."""

        def named(operand: fx.Node) -> Any:
            return _Written(self._leaves.get(operand, "a call"))

        return self._callee(node), repr(fx.node.map_arg((node.args, node.kwargs), named))

    def _callee(self, node: fx.Node) -> Hashable:
        if node.op == "call_module":
            return self._modules[str(node.target)]
        return operator_name(node) if node.op == "call_function" else f"method {node.target}"

    def known(self, node: fx.Node) -> Hashable:
        """What a value is known by in both programs: of a call its number, None where it has no equal."""
        return self._leaves.get(node, self.equal.get(node))

    def lasting(self, node: fx.Node) -> Hashable:
        """What the value, or what it was made of, is known by."""
        for _ in range(FAR):
            operands = _operands(node)
            if self.known(node) is not None or not operands:
                break
            node = operands[0]
        return self.known(node)


class _Written:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _operands(node: fx.Node) -> list[fx.Node]:
    """Every node that is read, as often as it is."""
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


def _attribute(program: Any, path: str) -> Any:
    found = program.graph_module if isinstance(program, ExportedProgram) else program
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _content(value: Any) -> str:
    if isinstance(value, fx.GraphModule):
        return f"graph {value.graph}"
    if not isinstance(value, Tensor):
        return f"constant {type(value).__name__} {value!r}"
    try:
        content = digest([value])
    except (RuntimeError, TypeError):  # sparse ones, and subclasses without memory
        content = f"object {id(value)}"
    return f"constant {value.dtype} {tuple(value.shape)} {content}"
