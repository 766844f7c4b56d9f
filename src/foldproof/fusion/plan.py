"""Where an affine goes: up to what computes the value it scales, or down to all that read it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from foldproof.fusion.absorb import ABSORBERS, Absorber
from foldproof.fusion.affine import Affine
from foldproof.fusion.affines import Match
from foldproof.fusion.motion import MOTIONS, Motion
from foldproof.fusion.result import Speed
from foldproof.graph.nodes import is_getitem, listed, value_readers
from foldproof.graph.text import operator_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit, NewConstant
from foldproof.rewriting.expression import Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import scaled, total

Judge = Callable[[GraphModule, GraphModule, Sequence[Tensor]], Speed]


@dataclass
class Plan:
    """Changes that belong together, after which what reads ``results`` reads ``input`` instead.

    ``folded`` are the calls that are saved, ``moved`` the operators that an affine passes on its way: their values
    change, and nothing else reads them. ``source`` says what is folded. A ``conditional`` plan is right for parameters
    that give scales of the same sign only. ``axes`` are those of the affine, on the values that it is moved past.

    A plan that makes one operator of several has ``parts`` instead, which become parts of its value, laid out in memory
    as these fake tensors are; they are computed from ``reads`` by what is in ``context``. ``judge`` is given the region
    before and after and the region's inputs, measures, and may refuse.
    """

    source: str
    folded: list[Node]
    results: tuple[Node, ...] = ()
    input: Node | None = None
    edits: list[Edit] = field(default_factory=list)
    moved: list[Node] = field(default_factory=list)
    conditional: bool = False
    parts: Mapping[Node, Tensor] = field(default_factory=dict)
    reads: Node | None = None
    context: list[Node] = field(default_factory=list)
    judge: Judge | None = None
    axes: dict[Node, list[int]] = field(default_factory=dict)

    @staticmethod
    def of(match: Match) -> Plan:
        """An empty plan for a match."""
        [*_, last] = match.steps
        if last.strip is not None:
            return Plan(match.rule, [], edits=[Edit("", last.node, (), partial(_strip, last.strip))])
        axes = dict.fromkeys(match.results, match.affine.axes)
        return Plan(match.rule, [step.node for step in match.steps], match.results, match.input, axes=axes)

    @property
    def nodes(self) -> list[Node]:
        """All nodes that it touches, but for constants."""
        return list(dict.fromkeys([*(edit.node for edit in self.edits), *self.moved, *self.folded, *self.results]))

    def new_values(self) -> tuple[list[Node], dict[Node, Node]]:
        """The nodes whose values it changes, and of those that get another node's old value, that node."""
        if self.input is None or self.input not in self.nodes:
            return self.moved, {}  # towards the readers, who compute what they did
        return [*(edit.node for edit in self.edits), *self.moved], {self.input: self.results[0]}

    @property
    def rule(self) -> str:
        return f"{self.source} into {', '.join(dict.fromkeys(edit.rule for edit in self.edits if edit.rule))}"


@dataclass(frozen=True)
class Planner:
    """Finds plans, with the rules that it is given."""

    constants: Constants
    order: Callable[[Node], int]
    absorbers: Sequence[Absorber] = ABSORBERS
    motions: Sequence[Motion] = MOTIONS

    def plan(self, match: Match) -> Plan:
        """A plan for a match: up if that can be, else down.

        Raises:
            CannotFold: there is none, with the reason in both directions.
        """
        if not any(map(self._readers, match.results)):
            raise CannotFold("nothing reads its result")
        try:
            return self.up(match, 0)
        except CannotFold as refusal:
            up = refusal
        with contextlib.suppress(CannotFold):
            return self.up(match, 1)
        try:
            return self.down(match)
        except CannotFold as down:
            raise type(up)(f"{up}; nor can what reads it absorb it: {down}", up.hint or down.hint) from None

    def constant(self, node: Node, reader: Node, folded: list[Node]) -> Plan:
        """A plan to compute ``node``, which depends on constants alone, once and for all for one of its readers."""
        same = Affine(torch.zeros([1] * value_of(node).dim(), dtype=torch.int64), 1, None, None)
        edit = self._constant(node, same, reader)
        return Plan("weight normalisation", folded, edits=[edit])

    def up(self, match: Match, side: int) -> Plan:
        """Towards the producers. Where one of two operands has to take it, ``side`` says which."""
        if match.steps[-1].strip is not None:
            raise CannotFold("it is a part of what computes its statistics")
        plan = Plan.of(match)
        demands: dict[Node, dict[Node, Affine]] = {}
        queue = _Queue(lambda node: -self.order(node))

        def demand(node: Node, affine: Affine, reader: Node) -> None:
            if affine.is_identity:
                return
            demands.setdefault(node, {})[reader] = affine
            plan.axes[node] = affine.axes
            queue.push(node)

        for reader in match.steps[0].results:
            demand(match.input, match.affine, reader)
        for node in queue:
            of = demands[node]
            if self.constants.holds(node):
                plan.edits += [self._constant(node, affine, reader) for reader, affine in of.items()]
                continue
            affine = self._only(node, of)
            absorber = self._absorber(node)
            motion = None if absorber else self._motion(node)
            if absorber is not None:
                wanted = absorber.output(node, affine, self.constants)
                self._require_only_reader(node, of)
                plan.edits.append(Edit(absorber.id, node, wanted, absorber.install))
                if is_getitem(node):
                    plan.moved += [node, *node.all_input_nodes]
            elif motion is not None:
                self._require_only_reader(node, of)
                for operand, moved in motion.up(node, affine, self.constants, side).items():
                    demand(operand, moved, node)
                self._pass(plan, node, motion)
            else:
                raise self._unknown(node)
        return plan

    def down(self, match: Match) -> Plan:
        """Towards the readers, all of which have to take it."""
        self.constants.require_lasting(match.input)
        plan = Plan.of(match)
        carried: dict[Node, Affine] = dict.fromkeys(match.results, match.affine)
        queue = _Queue(self.order)
        for result in match.results:
            queue.push_all(self._readers(result))
        for node in queue:
            operands = {x: carried[x] for x in self._operands(node) if x in carried}
            if node.op != "call_function":
                raise CannotFold(f"{listed([node])} reads it")
            absorber = self._absorber(node)
            if absorber is not None and len(operands) == 1:
                [(operand, affine)] = operands.items()
                wanted = absorber.input(node, operand, affine, self.constants)
                plan.edits.append(Edit(absorber.id, node, wanted, absorber.install))
                continue
            motion = self._motion(node)
            if motion is None:
                raise CannotFold(f"it is read by {node.name} ({operator_name(node)}), which it can't be moved through")
            carried[node] = motion.down(node, operands, self.constants)
            plan.axes[node] = carried[node].axes
            self._pass(plan, node, motion)
            queue.push_all(self._readers(node))
        if not any(edit.wanted for edit in plan.edits):
            raise CannotFold("nothing that reads it can absorb it")
        return plan

    def _pass(self, plan: Plan, node: Node, motion: Motion) -> None:
        if self.constants.is_written(node):
            raise CannotFold(f"{node.name} is changed in place")
        plan.moved += [*(node.all_input_nodes if is_getitem(node) else []), node]
        plan.conditional |= motion.conditional

    def _absorber(self, node: Node) -> Absorber | None:
        return next((rule for rule in self.absorbers if rule.takes(node, self.constants)), None)

    def _motion(self, node: Node) -> Motion | None:
        return next((rule for rule in self.motions if rule.takes(node)), None)

    def _unknown(self, node: Node) -> CannotFold:
        if node.op == "placeholder":
            return CannotFold(
                f"it reads an input of the program, {node.name}, so nothing before it can absorb it",
                "normalise before the program is called, or put a linear operator without zero padding behind it",
            )
        return CannotFold(
            f"it reads the output of {node.name} ({operator_name(node)}), which is no linear operator with constant"
            " weights, nor one that it can be moved through"
        )

    def _only(self, node: Node, demands: Mapping[Node, Affine]) -> Affine:
        first, *others = demands.values()
        if not all(first.same_as(other) for other in others):
            raise CannotFold(f"the readers of {node.name} need it scaled differently")
        return first

    def _require_only_reader(self, node: Node, demands: Mapping[Node, Affine]) -> None:
        others = [reader for reader in self._readers(node) if reader not in demands]
        if others:
            raise CannotFold(
                f"the output of {node.name}, which it scales, is also read by {listed(others)}",
                "let the others read the result of the normalisation, too",
            )

    def _readers(self, node: Node) -> list[Node]:
        """What reads the value of a node; of an operator with several results, what takes them out."""
        found: list[Node] = []
        for reader in value_readers(node):
            several = reader.op == "call_function" and not isinstance(reader.meta.get("val"), torch.Tensor)
            taken = [user for user in reader.users if is_getitem(user)]
            found += value_readers(reader) if several and taken and len(taken) == len(reader.users) else [reader]
        return found

    def _operands(self, node: Node) -> list[Node]:
        return [x for n in node.all_input_nodes for x in ([n, *n.all_input_nodes] if is_getitem(node) else [n])]

    def _constant(self, node: Node, affine: Affine, reader: Node) -> Edit:
        """A constant operand is scaled and shifted for one of its readers."""
        expression = self.constants.expression(node, f"{node.name}, an operand of {reader.name},")
        value = value_of(node)
        if affine.channels.dim() > value.dim():
            raise CannotFold(f"{node.name} is a constant of lower rank")
        scale, shift = affine.tensors()
        moved: Operand = total(scaled(expression, scale), shift)
        base = self.constants.base(node)
        new = NewConstant("constant", base, base, value.dtype, moved)

        places = _places(reader, node)

        def install(target: Node, made: Mapping[str, Node]) -> None:
            _replace(target, places, made["constant"])

        return Edit("constant", reader, (new,), install)


def _strip(strip: Callable[[Node], None], node: Node, new: Mapping[str, Node]) -> None:
    strip(node)


def _places(reader: Node, operand: Node) -> set[int]:
    """Where among the operands of ``reader`` one stands, repetitions counted."""
    operands: list[Node] = []
    map_arg((reader.args, reader.kwargs), operands.append)
    return {place for place, node in enumerate(operands) if node is operand}


def _replace(reader: Node, places: set[int], new: Node) -> None:
    count = itertools.count()
    args, kwargs = map_arg((reader.args, reader.kwargs), lambda old: new if next(count) in places else old)
    reader.args, reader.kwargs = args, kwargs


class _Queue(Iterable[Node]):
    """Nodes in an order, each once, while more are pushed that come later."""

    def __init__(self, key: Callable[[Node], int]) -> None:
        self._key = key
        self._heap: list[tuple[int, int, Node]] = []
        self._seen: set[Node] = set()

    def push(self, node: Node) -> None:
        if node not in self._seen:
            self._seen.add(node)
            heapq.heappush(self._heap, (self._key(node), len(self._seen), node))

    def push_all(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self.push(node)

    def __iter__(self) -> _Queue:
        return self

    def __next__(self) -> Node:
        if not self._heap:
            raise StopIteration
        return heapq.heappop(self._heap)[2]
