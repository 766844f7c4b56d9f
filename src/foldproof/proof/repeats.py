"""Layers that repeat are proved once.

Claim and soundness
-------------------
Both programs are graphs that consist of n parts which repeat (`foldproof.graph.repeats`), what stands before them, and
what stands behind. Part j is a function P(x, q, θj) of the values x that the part before leaves behind, of values q
from before all parts, and of leaves θj. The other program has parts Q(x, q, θj). *Shortened* programs have the first
part only:

* The values that the first part is given are replaced by uninterpreted functions of them, one for each element of each
  value. If the shortened programs agree for all such functions, P(x, q, θ) = Q(x, q, θ) holds for all x and θ, and so
  for each part.
* What the first part leaves behind is replaced by one uninterpreted function of it. By induction, all other parts of
  both programs are the same function of that. The nodes behind all parts are the same function of it if they are the
  same for all functions.

The leaves of the first part stand for those of each other part. That holds if

* one mapping of leaves fits the operands of both programs, so that leaves that are one tensor in the first part are one
  in all others,
* corresponding leaves have the same shape, strides and dtype, and vary without exception, or have the same content,
* no leaf that differs from part to part is read before all parts: values from there would be bound to the leaves of the
  first one,
* all values that pass on have residues: of whole numbers, the proof would see the first ones only,
* what the first part leaves behind is sure to be a number, for all inputs and parameters, if what it is given is:
  comparisons are read otherwise where a value may be a nan or infinite.

A proof that follows values makes the choices of the first part. It holds for the others if they make the same ones.
Those of comparisons and of whole numbers show in the result, and are compared in runs of the whole programs. A proof
that follows others, or one from behind the parts, is not used.

Programs that write something, or draw random numbers, are not shortened.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, fx

from foldproof.claim import Claim
from foldproof.digest import digest
from foldproof.graph.nodes import short_name
from foldproof.graph.repeats import Repeats, arrange, find_repeats
from foldproof.program import Leaf, Watch
from foldproof.program.exported import ExportedProgramForm
from foldproof.program.modules import GraphProgram
from foldproof.proof.attempt import Attempt, lending, run_both
from foldproof.proof.floats import own_leaves
from foldproof.proof.obligation import ProofObligation, Sides, Tensors, identity
from foldproof.proof.running import run_copied
from foldproof.proof.variation import vary
from foldproof.shadow import (
    Residue,
    SamplePoint,
    Shadow,
    Undecided,
    all_finite,
    apply_to_each,
    apply_to_whole,
    is_number,
)
from foldproof.thresholds import MAX_RELATIVE_SPREAD
from foldproof.torch_internals import copied_graph, disable_current_modes

Pair = tuple[Repeats, Repeats]
Graph = ExportedProgramForm | GraphProgram
_GRAPHS = (ExportedProgramForm, GraphProgram)


@dataclass(frozen=True)
class Shortened:
    """The ``obligation`` with the first of the parts that repeat, and the one that it was, the ``whole``."""

    obligation: ProofObligation
    whole: ProofObligation
    pairs: tuple[Pair, ...]
    runs: tuple[_Run, _Run]
    held: frozenset[str]
    """Names of leaves of the other parts that have the content of one in the first part."""
    passing: _Passing
    """The values that passed from part to part so far."""
    origins: Mapping[fx.Node, fx.Node]
    """The nodes of the whole graphs, by those of the shortened ones."""

    def stands_for_whole(self, found: Attempt, seed: int) -> bool:
        """Return True if a proof of the shortened programs is one of the whole ones, whatever values it followed.

        Of ordinary tensors that pass on, the proof has seen the first ones only.

        Raises:
            Undecided: as `foldproof.proof.attempt.run_both`.
        """
        point = found.point
        if not found.equal or point.escapes or point.lucky or not self.passing.allows(point):
            return False
        if point.branch and not self._choices_show(found, seed):
            return False
        return all(map(_look_alike, *(run.outputs for run in self.runs)))

    def _choices_show(self, found: Attempt, seed: int) -> bool:
        """Return True if each choice by value is made before all parts, or in a boolean or whole number of a part.

        These have to be the same in each part of the whole programs.
        """
        chosen: tuple[list[fx.Node], list[fx.Node]] = [], []
        unseen = list[int]()

        def run(lent: bool) -> None:
            point, made = SamplePoint(seed, 1, found.point.semantics), 0
            unseen.clear()

            def watch(nodes: list[fx.Node]) -> Watch:
                nodes.clear()

                def see(node: fx.Node, value: Any) -> None:
                    nonlocal made
                    if point.choices_made > made:
                        nodes.append(node)
                        made = point.choices_made

                return see

            run_both(self.obligation, point, found.variation, lent, (watch(chosen[0]), watch(chosen[1])))
            if point.choices_made > made:  # by no node: an output shows a chosen place
                unseen.append(point.choices_made)

        with torch.no_grad():
            lending(self.obligation, run)
        made_by = [[self.origins.get(node) for node in nodes] for nodes in chosen]
        return not unseen and all(
            run.shows([pair[i] for pair in self.pairs], made_by[i]) for i, run in enumerate(self.runs)
        )

    def claim(self, found: Attempt) -> Claim:
        """Return the claim of a proof of the shortened programs, for the whole ones."""
        found.point.read.update(self.held)
        return replace(found, variation=vary(self.whole, True)).claim(self.whole)

    @property
    def told(self) -> tuple[str, ...]:
        """The parts that one proof holds for, in words."""
        return tuple(
            f"{len(a.parts)} layers are the same function of their own parameters ({len(a.parts[0])} operators each in"
            f" the first program, {len(b.parts[0])} in the second): the proof of one holds for all"
            for a, b in self.pairs
        )


def shorten(obligation: ProofObligation) -> Shortened | None:
    """Return the obligation with one of the parts that repeat; None if none surely do.

    Raises:
        Undecided: a program fails.
    """
    if obligation.remade or obligation.computes or not obligation.general or obligation.overlapping is not None:
        return None
    leaves = own_leaves(obligation)
    first, sides = obligation.before, obligation.after(leaves)
    second = sides.after
    if not (isinstance(first, _GRAPHS) and isinstance(second, _GRAPHS)):
        return None
    if not (first.is_repeatable and second.is_repeatable):
        return None
    first, second = (program.with_graph(arrange(program.graph_module)) for program in (first, second))
    ways, others = (find_repeats(program.graph_module.graph) for program in (first, second))
    if not ways or not others:
        return None
    runs = _Run(first, leaves, obligation), _Run(second, sides.leaves, obligation)
    sources = _Sources(first, second, sides, {*vary(obligation, True).parameters} & first.leaves.keys())
    pairs = sources.match(
        *([list(filter(run.passes_on_alike, way)) for way in of] for run, of in zip(runs, (ways, others)))
    )
    if not pairs:
        return None
    passing, origins = _Passing(), dict[fx.Node, fx.Node]()
    shorter, other = (
        program.with_graph(_shortened(program.graph_module, [pair[i] for pair in pairs], passing, origins))
        for i, program in enumerate((first, second))
    )
    if not {name for n in other.leaves if (name := sides.names.get(n)) is not None} <= shorter.leaves.keys():
        return None
    own = {name: t for name, t in sides.leaves.items() if name not in sides.names}

    def after(leaves: Tensors) -> Sides:
        made = {n: own[n].clone() if n in own else leaves[sides.names[n]] for n in other.leaves}
        return Sides(other, made, sides.names)

    held = frozenset(name for name in first.leaves.keys() - shorter.leaves.keys() if not sources.varies(name))
    return Shortened(
        replace(obligation, before=shorter, after=after), obligation, tuple(pairs), runs, held, passing, origins
    )


# ------------------------------------------------------------------------------------------------ which parts


class _Sources:
    """The leaves and inputs behind the placeholders of both programs. Leaves that are one tensor have one key."""

    def __init__(self, first: Graph, second: Graph, sides: Sides, varied: set[str]) -> None:
        self._names = {name: identity(leaf.tensor) for name, leaf in first.leaves.items()}
        self._leaf: dict[Hashable, Leaf] = {self._names[name]: leaf for name, leaf in first.leaves.items()}
        self._varied = {self._names[name] for name in varied}
        self._keys = self._keys_of(first, {name: name for name in first.leaves}), self._keys_of(second, sides.names)

    def _keys_of(self, program: Graph, names: Mapping[str, str]) -> dict[fx.Node, Hashable]:
        """Return the key of each source; ``names`` are the first program's names of leaves."""
        keys: dict[fx.Node, Hashable] = {}
        inputs = itertools.count()
        for node, name in program.named_sources():
            if name is not None and names.get(name) in self._names:
                keys[node] = self._names[names[name]]
            elif name is not None:
                keys[node] = id(program), name
                self._leaf[keys[node]] = program.leaves[name]
            else:
                keys[node] = ("input", next(inputs)) if node.op == "placeholder" else node
        return keys

    def varies(self, name: str) -> bool:
        return self._names[name] in self._varied

    def match(self, ways: Sequence[Sequence[Repeats]], others: Sequence[Sequence[Repeats]]) -> list[Pair]:
        """Return the parts that repeat in both programs, in order; each is given in all ways to cut it into parts."""
        found: list[Pair] = []
        start = 0
        for one in ways:
            for i in range(start, len(others)):
                pair = self._longest(one, others[i])
                if pair is not None:
                    found.append(pair)
                    start = i + 1
                    break
        return found

    def _longest(self, ways: Sequence[Repeats], others: Sequence[Repeats]) -> Pair | None:
        """Return the longest parts of both programs that are of the same layers; None if there are none."""
        of_leaves: dict[Hashable, list[Repeats]] = {}
        for b in others:
            of_leaves.setdefault(frozenset(self._keys[1][node] for node in b.sources[0]), []).append(b)
        pairs = [(a, b) for a in ways for b in of_leaves.get(frozenset(self._keys[0][n] for n in a.sources[0]), ())]
        for a, b in sorted(pairs, key=lambda pair: -min(len(one.parts) for one in pair)):
            count = min(len(a.parts), len(b.parts))
            if self._correspond(a.first(count), b.first(count)):
                return a.first(count), b.first(count)
        return None

    def _correspond(self, *pair: Repeats) -> bool:
        """Return True if the leaves of the first parts of both programs stand for those of all others."""
        a, b = pair
        if len(a.carried) != len(b.carried):
            return False
        changing: list[set[Hashable]] = [set(), set()]
        for j in range(1, len(a.parts)):
            mapping: dict[Hashable, Hashable] = {}
            for keys, repeats, changed in zip(self._keys, pair, changing):
                for here, there in zip(repeats.sources[0], repeats.sources[j]):
                    key, other = keys[here], keys[there]
                    if mapping.setdefault(key, other) != other or not self._may_stand_for(key, other):
                        return False
                    if key != other:
                        changed.add(key)
        if changing[0] != changing[1]:  # the parts begin at different places
            return False
        return not any(_is_read_before(*one) for one in zip(pair, self._keys, changing))

    def _may_stand_for(self, one: Hashable, other: Hashable) -> bool:
        """Return True if what is proved with one leaf holds with the other."""
        if one == other:
            return True
        if one not in self._leaf or other not in self._leaf:
            return False
        x, y = self._leaf[one], self._leaf[other]
        if (one in self._varied) != (other in self._varied) or x.aliased or y.aliased:
            return False
        if one not in self._varied:
            return _form(x.tensor) == _form(y.tensor) and _same_bits(x.tensor, y.tensor)
        same = _form(x.tensor) == _form(y.tensor) and x.valueless == y.valueless
        return same and all(leaf.valueless or all_finite(leaf.tensor) for leaf in (x, y))


def _same_bits(x: Tensor, y: Tensor) -> bool:
    """Return True for equal numbers with equal signs, those of zeros, too; nan equals nothing."""
    return torch.equal(x, y) and (not x.is_floating_point() or torch.equal(x.signbit(), y.signbit()))


def _form(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype, x.device


def _is_read_before(repeats: Repeats, keys: dict[fx.Node, Hashable], of: set[Hashable]) -> bool:
    """Return True if a node before all parts reads one of these leaves."""
    first = repeats.parts[0][0]
    return any(user < first for node, key in keys.items() if key in of for user in node.users)


# ------------------------------------------------------------------------------------------------ the shorter graph


def _shortened(
    module: fx.GraphModule, groups: Sequence[Repeats], passing: _Passing, origins: dict[fx.Node, fx.Node]
) -> fx.GraphModule:
    """Return the graph with the first part of each group, and record the ``origins`` of its nodes."""
    graph, copy = copied_graph(module)
    origins.update({twin: node for node, twin in copy.items()})
    for number, repeats in enumerate(groups):
        first, last = repeats.parts[0], repeats.parts[-1]
        with graph.inserting_before(copy[first[0]]):
            given = [
                graph.call_function(_given(f"{number}.{i}", passing), (copy[node],))
                for i, node in enumerate(repeats.given)
            ]
        for node, operand, i in repeats.reads:
            _set_operand(copy[node], operand, given[i])
        left = [copy[first[at]] for at in repeats.carried]
        with graph.inserting_after(copy[first[-1]]):
            at = rest = graph.call_function(_rest(str(number), passing), (left,))
        dropped = {copy[node] for part in repeats.parts[1:] for node in part}
        for i, place in enumerate(repeats.carried):
            with graph.inserting_after(at):
                at = graph.call_function(operator.getitem, (rest, i))
            copy[last[place]].replace_all_uses_with(at, lambda user: user not in dropped)
            copy[last[place]] = at
        for node in reversed([node for node in graph.nodes if node in dropped]):
            graph.erase_node(node)
    for node in reversed([node for node in graph.nodes if node.op == "get_attr" and not node.users]):
        graph.erase_node(node)
    return fx.GraphModule(module, graph)


def _set_operand(node: fx.Node, number: int, new: fx.Node) -> None:
    """Replace one operand of a node, by its number in the order of `fx.map_arg`."""
    numbers = itertools.count()
    node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda x: new if next(numbers) == number else x)


class _Passing:
    """A record of the values that pass from part to part, by their numbers."""

    def __init__(self) -> None:
        self._plain = False
        self._unsure = set[str]()
        """Values that a part leaves behind as no sure numbers, and is given as such in further runs."""
        self._sure = WeakKeyDictionary[SamplePoint, set[str]]()
        """Those that it was given as sure numbers, at each sample point."""
        self._lost = WeakSet[SamplePoint]()
        """Sample points where it left such a value unsure."""

    def note_plain(self) -> None:
        """Record that an ordinary tensor passed on."""
        self._plain = True

    def is_sure(self, number: str, residue: Residue) -> bool:
        """Return True if the value is to be given as a number for all inputs and parameters, and record it."""
        sure = number not in self._unsure and residue.sure
        if sure:
            self._sure.setdefault(residue.point, set()).add(number)
        return sure

    def note_left(self, number: str, residue: Residue) -> None:
        """Record what is left behind of a value."""
        if not residue.sure and number in self._sure.get(residue.point, ()):
            self._unsure.add(number)
            self._lost.add(residue.point)

    def allows(self, point: SamplePoint) -> bool:
        """Return True if the values of the first part stand for those of all others at this sample point."""
        return not self._plain and point not in self._lost


def _given(number: str, passing: _Passing) -> Callable[[Any], Any]:
    """Return the function that makes of a value any value of its shape; it returns and notes other tensors."""

    def given(x: Any) -> Any:
        if not isinstance(x, Shadow):
            passing.note_plain()
            return x
        with disable_current_modes():
            made = apply_to_each(f"identity(given {number})", _carried(x))
            return _shadow(x.value, made.sure_if(passing.is_sure(number, x.residue)))

    return given


def _rest(number: str, passing: _Passing) -> Callable[[Sequence[Any]], list[Any]]:
    """Return the function that stands for all parts but the first; it returns other tensors than shadows."""

    def rest(left: Sequence[Any]) -> list[Any]:
        if not any(isinstance(x, Shadow) for x in left):
            return list(left)
        with disable_current_modes():
            residues = [_carried(x) for x in left]
            for i, residue in enumerate(residues):
                passing.note_left(f"{number}.{i}", residue)
            names = [f"identity(rest {number}.{i})" for i in range(len(left))]
            return [_shadow(x.value, apply_to_whole(name, x.value, residues)) for name, x in zip(names, left)]

    return rest


def _carried(x: Any) -> Residue:
    """Return the residue of a value that passes from one part to the next.

    Raises:
        Undecided: it has none, or is infinite, or follows a random number.
    """
    if not isinstance(x, Shadow) or x.residue.infinite or x.residue.cell.random or x.is_complex():
        raise Undecided("a layer passes on a value without finite residues")
    return x.residue


def _shadow(value: Tensor, residue: Residue) -> Shadow:
    made = residue.laid_out_like(value)
    made.point.facts.share(made)
    return Shadow(value, made)


# ------------------------------------------------------------------------------------------------ the whole programs


class _Run:
    """A run of a whole program on its own values, and what it shows of parts that repeat."""

    def __init__(self, program: Graph, leaves: Tensors, obligation: ProofObligation) -> None:
        self._forms: dict[fx.Node, tuple[Any, ...]] = {}
        self._decisions: dict[fx.Node, str] = {}
        with torch.no_grad():
            run = run_copied(program, "whole", leaves, obligation.args, obligation.kwargs, self._watch)
        self.outputs = run.outputs

    def _watch(self, node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            self._forms[node] = _form(value)
            if not is_number(value.dtype):
                self._decisions[node] = digest([value])

    def passes_on_alike(self, repeats: Repeats) -> bool:
        """Return True if a part leaves tensors behind as it is given: then so does each part."""
        left = [self._forms.get(repeats.parts[0][at]) for at in repeats.carried]
        return None not in left and left == [self._forms.get(node) for node in repeats.given]

    def decides_alike(self, repeats: Repeats) -> bool:
        """Return True if booleans and whole numbers are the same in each part."""
        return len({tuple(self._decisions.get(node) for node in part) for part in repeats.parts}) == 1

    def shows(self, groups: Sequence[Repeats], chosen: Collection[fx.Node | None]) -> bool:
        """Return True if choices by value at these nodes are those of each part; None is a node of no known origin.

        A node makes the same choice in each part if it returns the same booleans or whole numbers, or chooses by such.
        """
        start = groups[0].parts[0][0]
        first = {node for repeats in groups for node in repeats.parts[0]}
        for node in chosen:
            if node is None or node.op == "placeholder":  # made before the first node, or between the programs
                return False
            by_boolean = short_name(node) in _BY_BOOLEANS and any(x in self._decisions for x in node.all_input_nodes)
            if not (node < start or (node in first and (node in self._decisions or by_boolean))):
                return False
        return all(map(self.decides_alike, groups))


_BY_BOOLEANS = frozenset({"where", "masked_fill", "any", "all", "logical_not"})
"""Operators that choose by booleans alone."""


def _look_alike(a: Any, b: Any) -> bool:
    """Return True for values of the same size where both are finite: the shortened programs do not show overflows."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    if a.is_complex() and b.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    if not (a.is_floating_point() and b.is_floating_point()):
        return bool(torch.equal(a, b))
    if a.shape != b.shape or not a.numel():
        return bool(a.shape == b.shape)
    x, y = a.double(), b.double()
    finite = x.isfinite()
    largest = torch.where(finite, x, 0.0).abs().max()
    apart = torch.where(finite, x - y, 0.0).abs().max()
    return bool((finite == y.isfinite()).all()) and float(apart) <= MAX_RELATIVE_SPREAD * float(largest)
