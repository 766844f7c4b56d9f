"""Plans: the path of an affine, up to the producers of the value that it scales, or down to all its readers.

Up means: the affine leaves its place, and the operators before it compute the scaled value at once. Every node on the
way gets a demand, "your value has to be this affine of the old one". An absorber meets it with new constants; a motion
passes demands on to its operands. A node that several readers demand differently, or that others read unscaled, can't
meet it. Down means: the readers get the unscaled value, and each has to make up for it. An absorber takes the affine
into its constants; a motion carries it to its own value. Down follows the order of the graph and up the reverse, so
that all demands on a node are known when it is visited.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from foldproof.fusion.absorb import ABSORBERS, Absorber
from foldproof.fusion.affine import Affine
from foldproof.fusion.affines import Match
from foldproof.fusion.motion import MOTIONS, Motion
from foldproof.fusion.motion.limits import Limits
from foldproof.fusion.motion.rule import find_sizes
from foldproof.fusion.motion.selection import read_elements, require_static
from foldproof.fusion.result import Speed
from foldproof.graph.nodes import is_getitem, kind_of, listed, value_readers
from foldproof.graph.text import operator_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit, NewConstant
from foldproof.rewriting.expression import Expression, Operand, OwnArithmetic, as_expression
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import UNREAD, joined, scaled, total

Judge = Callable[[GraphModule, GraphModule, Sequence[Tensor]], Speed]


@dataclass
class Plan:
    """Changes that belong together. After them, the readers of ``results`` read ``input`` instead.

    ``source`` names the folded affine. ``folded`` are the calls that are saved. ``moved`` are the operators that the
    affine passes: their values change, and no other node reads them. A ``conditional`` plan is right only for
    parameters that give scales of the same sign, or for those at hand. ``cut`` has the share of each value that is cut
    out of it. ``axes`` are the channel axes of the affine on the values that it
    passes.

    A plan that joins several operators has ``parts`` instead of ``results``: these nodes become parts of the joined
    value, with the layouts of the fake tensors. They are computed from ``reads`` by the nodes in ``context``. ``judge``
    gets the region before and after with its inputs, measures both, and may refuse. ``products`` is the number of
    multiplications of weights with weights that its constants take.
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
    products: int = 0
    cut: Mapping[Node, float] = field(default_factory=dict)

    @staticmethod
    def of(match: Match) -> Plan:
        """Return an empty plan for a match."""
        [*_, last] = match.steps
        if last.strip is not None:
            return Plan(match.rule, [], edits=[Edit("", last.node, (), partial(_strip, last.strip))])
        axes = dict.fromkeys(match.results, match.affine.axes)
        nodes, between = [step.node for step in match.steps], [node for step in match.steps for node in step.between]
        return Plan(match.rule, nodes, match.results, match.input, axes=axes, context=between)

    @property
    def nodes(self) -> list[Node]:
        """All nodes that the plan touches, except constants."""
        return list(dict.fromkeys([*(edit.node for edit in self.edits), *self.moved, *self.folded, *self.results]))

    def new_values(self) -> tuple[list[Node], dict[Node, Node]]:
        """Return the nodes whose values change, and a map from those with another node's old value to that node."""
        if self.input is None or self.input not in self.nodes:
            return self.moved, {}  # down: the readers compute the same values as before
        return [*(edit.node for edit in self.edits), *self.moved], {self.input: self.results[0]}

    @property
    def rule(self) -> str:
        into = ", ".join(dict.fromkeys(edit.rule for edit in self.edits if edit.rule))
        return f"{self.source} into {into}" if into else self.source


@dataclass(frozen=True)
class Planner:
    """Finds plans by the given rules."""

    constants: Constants
    order: Callable[[Node], int]
    absorbers: Sequence[Absorber] = ABSORBERS
    motions: Sequence[Motion] = MOTIONS
    limits: Limits | None = None
    """The rule for clamps, whose limits change; it is the last resort."""

    def plan(self, match: Match) -> Plan:
        """Plan a fold of the match: up if possible, else down.

        Raises:
            CannotFold: neither is possible; the message has the reasons for both directions.
        """
        if not any(map(self._list_readers, match.results)):
            raise CannotFold("nothing reads its result")
        try:
            return self.plan_up(match, 0)
        except CannotFold as refusal:
            up = refusal
        with contextlib.suppress(CannotFold):
            return self.plan_up(match, 1)
        try:
            return self.plan_down(match)
        except CannotFold as down:
            with contextlib.suppress(CannotFold):
                return self.plan_down(match, into_factors=True)
            with contextlib.suppress(CannotFold):
                return replace(self, limits=Limits()).plan_up(match, 0)
            raise type(up)(f"{up}; and its readers can't absorb it: {down}", up.hint or down.hint) from None

    def plan_constant(self, node: Node, folded: list[Node]) -> Plan:
        """Plan to compute ``node``, which depends only on constants, once in advance, without the ``folded`` calls.

        Raises:
            CannotFold: a constant is written to, or has no value.
        """
        self.constants.require_lasting(node)
        expression = self.constants.expression(node, f"{node.name}, computed from constants,", integers=True)
        reads = tuple(dict.fromkeys(as_expression(expression).reads()))
        if not any(self.constants.tensors[name].is_floating_point() for name in reads):
            # No weight is in it, so that it is the very number that each call computes.
            expression = Expression(OwnArithmetic(as_expression(expression), reads), reads)
        base, like = self.constants.base_of_any(node)
        new = NewConstant("constant", base, like, value_of(node).dtype, expression, infinite=True)
        return Plan("computed constant", folded, edits=[Edit("", node, (new,), _install_constant)])

    def plan_up(self, match: Match, side: int) -> Plan:
        """Plan towards the producers; if one of two operands has to take the affine, ``side`` selects it.

        Raises:
            CannotFold: a producer can neither absorb the affine nor pass it on.
        """
        if match.steps[-1].strip is not None:
            raise CannotFold("it is part of a normalisation, which has to stay")
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
            if self.constants.holds(node):  # each reader gets its own copy, so demands may differ
                plan.edits += [self._plan_constant(node, affine, reader) for reader, affine in of.items()]
                continue
            affine = self._join_demands(plan, node, of)
            absorber = self._find_absorber(node)
            limits = self.limits if self.limits is not None and self.limits.takes(node) else None
            motion = (
                None if absorber or limits else self._find_motion(node)
            )  # an affine moves no further than necessary
            if absorber is not None:
                wanted = absorber.output(node, affine, self.constants)
                plan.edits.append(Edit(absorber.id, node, wanted, absorber.install))
                if is_getitem(node):
                    plan.moved += [node, *node.all_input_nodes]
            elif limits is not None:
                moves, edit = limits.up(node, affine, self.constants)
                for operand, moved in moves.items():
                    demand(operand, moved, node)
                plan.edits.append(edit)
                self._record_pass(plan, node)
            elif motion is not None:
                for operand, moved in motion.up(node, affine, self.constants, side).items():
                    demand(operand, moved, node)
                self._record_pass(plan, node)
                plan.conditional |= motion.conditional
            else:
                raise self._explain_refusal(node)
        return plan

    def plan_down(self, match: Match, *, into_factors: bool = False) -> Plan:
        """Plan towards the readers, all of which have to take the affine.

        Args:
            match: the affines.
            into_factors: constant factors take a scale, as a rotary table does; otherwise it moves past them.

        Raises:
            CannotFold: a reader can neither absorb the affine nor pass it on.
        """
        self.constants.require_lasting(match.input)
        plan = Plan.of(match)
        carried: dict[Node, Affine] = dict.fromkeys(match.results, match.affine)
        queue = _Queue(self.order)
        for result in match.results:
            queue.push_all(self._list_readers(result))
        for node in queue:
            operands = {x: carried[x] for x in self._list_operands(node) if x in carried}
            if node.op != "call_function":
                raise CannotFold(f"{listed([node])} reads it")
            absorber = self._find_absorber(node)
            if absorber is not None and len(operands) == 1:
                [(operand, affine)] = operands.items()
                wanted = absorber.input(node, operand, affine, self.constants)
                plan.edits.append(Edit(absorber.id, node, wanted, absorber.install))
                continue
            factor = self._find_factor(node) if into_factors else None
            if factor is not None:
                [affine] = operands.values()
                plan.edits.append(self._plan_factor(factor, affine, node))
                continue
            motion = self._find_motion(node)
            if motion is None:
                raise CannotFold(f"it is read by {node.name} ({operator_name(node)}), which it can't be moved through")
            carried[node] = motion.down(node, operands, self.constants)
            plan.axes[node] = carried[node].axes
            self._record_pass(plan, node)
            plan.conditional |= motion.conditional
            queue.push_all(self._list_readers(node))
        if not any(edit.wanted for edit in plan.edits):  # moving alone saves nothing
            raise CannotFold("nothing that reads it can absorb it")
        return plan

    def _find_factor(self, node: Node) -> Node | None:
        """Return the constant tensor that a product multiplies a value by."""
        held = [x for x in node.all_input_nodes if self.constants.holds(x)]
        return held[0] if kind_of(node) == "mul" and len(held) == 1 and len(node.all_input_nodes) == 2 else None

    def _plan_factor(self, factor: Node, affine: Affine, reader: Node) -> Edit:
        """Scale a constant factor of ``reader``, without making it larger."""
        shape = value_of(factor).shape
        missing = affine.channels.dim() - len(shape)
        if affine.shift is not None or missing < 0 or any(size > 1 for size in affine.channels.shape[:missing]):
            raise CannotFold(f"{factor.name}, by which {reader.name} multiplies, can't take it")
        own = affine.on(affine.channels.reshape(affine.channels.shape[missing:]))
        if torch.broadcast_shapes(own.channels.shape, shape) != shape:
            raise CannotFold(f"{factor.name}, by which {reader.name} multiplies, would be larger")
        return self._plan_constant(factor, own, reader)

    def _record_pass(self, plan: Plan, node: Node) -> None:
        if self.constants.is_written(node):
            raise CannotFold(f"{node.name} is changed in place")
        plan.moved += [*(node.all_input_nodes if is_getitem(node) else []), node]

    def _find_absorber(self, node: Node) -> Absorber | None:
        return next((rule for rule in self.absorbers if rule.takes(node, self.constants)), None)

    def _find_motion(self, node: Node) -> Motion | None:
        return next((rule for rule in self.motions if rule.takes(node)), None)

    def _explain_refusal(self, node: Node) -> CannotFold:
        if node.op == "placeholder":
            return CannotFold(
                f"it reads an input of the program, {node.name}, so nothing before it can absorb it",
                "normalise before the program is called",
            )
        return CannotFold(
            f"it reads the output of {node.name} ({operator_name(node)}), which is neither a linear operator with"
            " constant weights nor one that it can be moved through"
        )

    def _join_demands(self, plan: Plan, node: Node, demands: Mapping[Node, Affine]) -> Affine:
        """Return one affine that gives each reader its own: readers of different parts, as of a split, may differ.

        Readers of other parts, whose values stay as they are, become ``context`` of the plan.
        """
        others = [reader for reader in self._list_readers(node) if reader not in demands]
        first, *rest = demands.values()
        if not others and all(first.same_as(other) for other in rest):
            return first
        read = [self._read_elements(node, reader) for reader in others]
        if any(map(torch.Tensor.all, read)):
            self._refuse_others(node, others)
        channels = torch.full(find_sizes(node), UNREAD)
        for elements in read:
            channels[elements] = 0  # of the identity
        joined_affines: list[Affine] = []
        for reader, affine in demands.items():
            same = next((i for i, known in enumerate(joined_affines) if known.same_as(affine)), len(joined_affines))
            if same == len(joined_affines):
                joined_affines.append(affine)
            elements = self._read_elements(node, reader)
            own = affine.channels.expand(channels.shape) + 1 + sum(a.count for a in joined_affines[:same])
            own = torch.where(affine.channels == UNREAD, UNREAD, own)
            held = channels[elements]
            if bool((held == 0).any()):
                self._refuse_others(node, others)
            if bool(((held != UNREAD) & (held != own[elements])).any()):
                raise CannotFold(f"the readers of {node.name} need it scaled differently")
            channels[elements] = own[elements]
        counts = [1, *(affine.count for affine in joined_affines)]
        scale = joined([None, *(affine.scale for affine in joined_affines)], counts, 1.0)
        shift = joined([None, *(affine.shift for affine in joined_affines)], counts, 0.0)
        plan.context += others
        whole = Affine(channels, sum(counts), scale, shift)
        return require_static(whole.on(channels), node, next(iter(demands)))

    def _read_elements(self, node: Node, reader: Node) -> Tensor:
        try:
            return read_elements(reader, node, self.constants)
        except CannotFold:
            return torch.ones(find_sizes(node), dtype=torch.bool)

    def _refuse_others(self, node: Node, others: list[Node]) -> NoReturn:
        raise CannotFold(f"the output of {node.name}, which it scales, is also read by {listed(others)}, as it is")

    def _list_readers(self, node: Node) -> list[Node]:
        """List the readers of a node's value; for a reader with several results, the nodes that take them out."""
        found: list[Node] = []
        for reader in value_readers(node):
            several = reader.op == "call_function" and not isinstance(reader.meta.get("val"), torch.Tensor)
            taken = [user for user in reader.users if is_getitem(user)]
            found += value_readers(reader) if several and taken and len(taken) == len(reader.users) else [reader]
        return found

    def _list_operands(self, node: Node) -> list[Node]:
        return [x for n in node.all_input_nodes for x in ([n, *n.all_input_nodes] if is_getitem(node) else [n])]

    def _plan_constant(self, node: Node, affine: Affine, reader: Node) -> Edit:
        """Scale and shift a constant operand for one of its readers."""
        expression = self.constants.expression(node, f"{node.name}, an operand of {reader.name},")
        value = value_of(node)
        if affine.channels.dim() > value.dim():
            raise CannotFold(f"{node.name} is a constant of lower rank")
        scale, shift = affine.tensors()
        moved: Operand = total(scaled(expression, scale), shift)
        base = self.constants.base(node)
        new = NewConstant("constant", base, base, value.dtype, moved)
        return Edit("constant", reader, (new,), partial(_replace, _find_places(reader, node)))


def _strip(strip: Callable[[Node], None], node: Node, new: Mapping[str, Node]) -> None:
    strip(node)


def _find_places(reader: Node, operand: Node) -> set[int]:
    """Return the positions of ``operand`` among the operands of ``reader``; repeated operands count each time."""
    operands: list[Node] = []
    map_arg((reader.args, reader.kwargs), operands.append)
    return {place for place, node in enumerate(operands) if node is operand}


def _install_constant(node: Node, made: Mapping[str, Node]) -> None:
    node.replace_all_uses_with(made["constant"])


def _replace(places: set[int], reader: Node, made: Mapping[str, Node]) -> None:
    count = itertools.count()
    new = made["constant"]
    args, kwargs = map_arg((reader.args, reader.kwargs), lambda old: new if next(count) in places else old)
    reader.args, reader.kwargs = args, kwargs


class _Queue(Iterable[Node]):
    """Iterator over nodes in a given order, each once; later nodes can be pushed meanwhile."""

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
