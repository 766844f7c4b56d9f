"""Constants of a program: constant nodes, their tensors, and functions of constants alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from foldproof.graph.nodes import arguments, base_of, is_getitem, memory_of, operator_of, written
from foldproof.graph.text import operator_name
from foldproof.operators import is_repeatable
from foldproof.program.state import storage_key
from foldproof.rewriting.expression import Expression, Operand, as_expression, rounded
from foldproof.rewriting.refusal import CannotFold
from foldproof.torch_internals import FakeTensor, is_traceable_wrapper_subclass


class Constants:
    """The parameters, buffers and constants of a program by name, and the nodes that are functions of them alone.

    A fold may read a constant only if nothing in the program writes to it; otherwise its result would become stale.
    ``names`` maps the nodes that stand for constants to their names.
    """

    def __init__(
        self, graph: Graph, subgraphs: torch.nn.Module, tensors: dict[str, Tensor], names: dict[Node, str]
    ) -> None:
        self.tensors, self.names = tensors, names
        self._nodes: dict[str, list[Node]] = {}
        for node, name in names.items():
            self._nodes.setdefault(name, []).append(node)
        self.originals: Mapping[str, Tensor] = dict(tensors)
        self.derived: dict[str, Expression] = {}
        """Constants that the original program lacks, as expressions over those that it has."""
        self.valueless: frozenset[str] = frozenset()
        """Names of constants of the original program whose values are random."""
        self._writers = written(graph, subgraphs)
        self._places = {node: place for place, node in enumerate(graph.nodes)}
        self._written = {node: f"written to by {writer.name}" for node, writer in self._writers.items()}
        self._stale: set[int] = set()
        self._settle()
        self._computed: set[Node] = set()
        for node in graph.nodes:
            if all(map(self.holds, node.all_input_nodes)) and _is_repeatable(node):
                self._computed.add(node)

    def updated(self, names: set[str]) -> None:
        """Record that running the program updates these constants."""
        for node, name in self.names.items():
            if name in names:
                self._written[node] = "updated by the program"
        self._settle()

    def _settle(self) -> None:
        # Names may share memory: a write to one then changes the other.
        self._stale = {storage_key(self.tensors[name]) for node, name in self.names.items() if node in self._written}

    def add(self, node: Node, name: str, tensor: Tensor, expression: Expression) -> None:
        """Make ``node`` a constant that holds ``tensor``, the rounded value of ``expression``."""
        self.names[node] = name
        self._nodes[name] = [node]
        self.tensors[name] = tensor
        self.derived[name] = expression

    def note_computed(self, node: Node) -> None:
        """Record a new call, and those that it reads, if they are functions of constants alone."""
        if node.op != "call_function" or self.holds(node):
            return
        for operand in node.all_input_nodes:
            self.note_computed(operand)
        if node.all_input_nodes and all(map(self.holds, node.all_input_nodes)) and _is_repeatable(node):
            self._computed.add(node)

    def expression(self, node: object, what: str, *, integers: bool = False) -> Operand:
        """Return a constant node's name, or an `Expression` if it is computed from constants.

        Args:
            node: the node.
            what: the role of the node for its reader, for the message.
            integers: constants of whole numbers are allowed, too.

        Raises:
            CannotFold: it depends on an input, is written to, or reads a tensor without plain floating-point elements.
        """
        if not isinstance(node, Node):
            raise CannotFold(f"{what} is {node!r}, not a tensor")
        if node in self.names or node.op != "call_function":
            return self.name(node, what, integers=integers)
        if node in self._written:
            raise CannotFold(f"{what}, {node.name}, is {self._written[node]}, so it is not constant")
        if not self.holds_computed(node):
            raise CannotFold(f"{what} is computed in the graph by {node.name} ({operator_name(node)}), not a parameter")
        call, operands = as_call(node)
        return Expression(call, tuple(self.expression(operand, what, integers=integers) for operand in operands))

    def name(self, node: Node, what: str, *, integers: bool = False) -> str:
        """Return the name of the constant that ``node`` stands for; see `expression`."""
        name = self.names.get(node)
        if name is None:
            raise CannotFold(f"{what} is {node.name}, an input of the program, not a parameter")
        if node in self._written:
            raise CannotFold(f"{what}, {name}, is {self._written[node]}, so it is not constant")
        tensor = self.tensors[name]
        if self.changes(tensor):
            raise CannotFold(f"{what}, {name}, shares memory with a tensor that the program writes to")
        if isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
            raise CannotFold(f"{what}, {name}, has no values: load the weights before fusing")
        if not _plain(tensor, integers):
            kind = type(tensor).__name__ if tensor.layout is torch.strided else f"{tensor.layout} tensor"
            raise CannotFold(f"{what}, {name}, is a {kind} of {tensor.dtype}, not a plain floating-point tensor")
        return name

    def optional(self, node: object, what: str) -> Operand:
        """Return the `expression`, or None for an operand that is not given."""
        return None if node is None else self.expression(node, what)

    def nodes_of(self, name: str) -> list[Node]:
        """Return the nodes that stand for a constant; in a GraphModule there may be several."""
        return self._nodes[name]

    def tensor_of(self, node: Node) -> Tensor | None:
        """Return the tensor of a parameter, buffer or constant, foldable or not; None for other nodes."""
        name = self.names.get(node)
        return None if name is None else self.tensors[name]

    def holds(self, node: object) -> bool:
        """True if ``node`` depends on no input of the program: a constant, or a function of constants alone."""
        return isinstance(node, Node) and (node in self.names or node in self._computed)

    def is_fixed(self, node: Node) -> bool:
        """True if ``node`` is the same in every run: a constant, or a function of constants, without writes to them."""
        if node in self._written:
            return False
        if node in self.names:
            return not self.changes(self.tensors[self.names[node]])
        return node in self._computed and all(map(self.is_fixed, node.all_input_nodes))

    def holds_computed(self, node: Node) -> bool:
        """True if ``node`` is a call that computes the same in every run, from constants alone."""
        return node in self._computed

    def computing(self, nodes: list[Node]) -> list[Node]:
        """Return the calls that compute the constant operands of ``nodes``, in no particular order."""
        found: dict[Node, None] = {}
        pending = [operand for node in nodes for operand in node.all_input_nodes]
        while pending:
            node = pending.pop()
            if node not in found and node not in self.names and self.holds_computed(node):
                found[node] = None
                pending += node.all_input_nodes
        return list(found)

    def is_written(self, node: Node) -> bool:
        """True if the program may write to the memory of ``node``."""
        return node in self._written

    def require_lasting(self, node: Node) -> None:
        """Refuse a node whose memory changes later, which makes its value depend on the time of reading.

        Raises:
            CannotFold: the memory of ``node`` is written to after it was computed.
        """
        for memory in memory_of(node):
            writer = self._writers.get(memory)
            if writer is not None and self._places[writer] > self._places[node]:
                raise CannotFold(f"{node.name}, which it reads, is changed in place by {writer.name}")

    def changes(self, tensor: Tensor) -> bool:
        """True if running the program changes the memory of ``tensor``, perhaps through another name."""
        return bool(self._stale) and storage_key(tensor) in self._stale

    def original(self, expression: Operand) -> Operand:
        """Return the expression over the constants of the original program."""
        if isinstance(expression, Expression):
            return expression.substitute(self.derived)
        return self.derived.get(expression, expression) if isinstance(expression, str) else expression

    def value(self, expression: Operand) -> Tensor:
        """Return the value of an expression in float64, on the CPU.

        Raises:
            CannotFold: a constant has no value.
        """
        found = self.original(expression)
        unknown = sorted(
            self.valueless.intersection([found] if isinstance(found, str) else as_expression(found).reads())
        )
        if unknown:
            raise CannotFold(f"the fold depends on the values of {unknown[0]}, which has none")
        if isinstance(found, str):
            return self.originals[found].detach().to("cpu", torch.float64)
        assert isinstance(found, Expression)
        with torch.no_grad():
            return rounded(found, self.originals, torch.float64)

    def integers(self, node: Node) -> Tensor:
        """Return the value of a constant node that holds indices."""
        if node in self.names:
            return self.tensors[self.names[node]]
        call = operator_of(node) or node.target
        args, kwargs = map_arg((node.args, dict(node.kwargs)), self.integers)
        found: Tensor = call(*args, **kwargs)  # type: ignore[operator]
        return found

    def base(self, node: Node) -> str:
        """Return the nearest constant that ``node`` is a view of, or is computed from."""
        found = self.origins(base_of(node))
        if not found:
            raise CannotFold(f"{node.name} is made from no parameter")
        return found[0]

    def base_of_any(self, node: Node) -> tuple[str, str]:
        """Return a name to start from, and a constant like which a new one is to be held, for what ``node`` computes.

        Raises:
            CannotFold: the program has no constant at all.
        """
        found = self.origins(base_of(node))
        if found:
            return found[0], found[0]
        buffers = [name for name, tensor in self.tensors.items() if not isinstance(tensor, torch.nn.Parameter)]
        like = next(iter([*buffers, *self.tensors]), None)
        if like is None:
            raise CannotFold(f"{node.name} is made from no parameter, and the program has none")
        return node.name, like

    def origins(self, node: Node) -> list[str]:
        """Return the floating-point constants that ``node`` is computed from, the nearest first."""
        pending, seen, found = [node], {node}, dict[str, None]()
        while pending:
            current = pending.pop(0)
            if current in self.names:
                if self.tensors[self.names[current]].is_floating_point():
                    found[self.names[current]] = None
                continue
            pending += [operand for operand in current.all_input_nodes if operand not in seen]
            seen.update(current.all_input_nodes)
        return list(found)


@dataclass(frozen=True)
class Slot:
    """The position of an operand in the arguments of an `OperatorCall`."""

    index: int


@dataclass(frozen=True)
class OperatorCall:
    """An operator with all its arguments except the tensors, as a function of these."""

    may_narrow: ClassVar[bool] = True
    """True because an operator may ask for a dtype."""

    target: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, *operands: Tensor) -> Any:
        def fill(x: Any) -> Any:
            if isinstance(x, Slot):
                return operands[x.index]
            return [fill(y) for y in x] if isinstance(x, tuple) else x

        return self.target(*map(fill, self.args), **{name: fill(value) for name, value in self.kwargs})


def as_call(node: Node) -> tuple[OperatorCall, list[Node]]:
    """Return the operator of a node with all its arguments except the tensors, and the nodes of these."""
    operands: list[Node] = []

    def slot(operand: Node) -> Any:
        operands.append(operand)
        return Slot(len(operands) - 1)

    given, keywords = map_arg(node.args, slot), map_arg(dict(node.kwargs), slot)
    target = operator_of(node) or node.target
    return OperatorCall(target, _frozen(given), tuple((k, _frozen(v)) for k, v in keywords.items())), operands


def _is_repeatable(node: Node) -> bool:
    """True if the node is a call that returns the same for the same operands, and changes nothing."""
    found = operator_of(node)
    return is_getitem(node) if found is None else is_repeatable(found, arguments(node))


def _frozen(x: Any) -> Any:
    return tuple(map(_frozen, x)) if isinstance(x, (list, tuple)) else x


def _plain(tensor: Tensor, integers: bool) -> bool:
    return (
        (tensor.is_floating_point() or (integers and not tensor.dtype.is_complex))
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not is_traceable_wrapper_subclass(tensor)
    )
