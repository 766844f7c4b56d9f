"""One comparison: run both programs on shadows at one sample point, and compare residues exactly."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from foldproof.claim import Claim, Held, Role, Scope, Why
from foldproof.layout import clone_apart
from foldproof.program import NO_ATTRIBUTES, Attribute, Leaf, Outcome, Program, Watch, copied
from foldproof.proof.obligation import ProofObligation, Tensors, copied_leaves, tied
from foldproof.proof.reads import Reads
from foldproof.proof.running import idle_counters, leaves_state, require_separate, run_copied, state_after
from foldproof.proof.variation import Variation, named_inputs, vary
from foldproof.shadow import (
    Cuts,
    Draws,
    Factories,
    GeneratorMoved,
    Recording,
    Residue,
    SamplePoint,
    Semantics,
    Shadow,
    Undecided,
    Visit,
    Visits,
    WritesBorrowed,
    draw_variable,
    embed_constant,
    is_number,
    watch_chosen,
)
from foldproof.shadow.call import value_of
from foldproof.thresholds import MAX_DISTURBED_RUNS
from foldproof.torch_internals import disable_current_modes, tree_leaves, tree_structure, tree_unflatten

T = TypeVar("T")


@dataclass(frozen=True)
class Equal:
    """All residues agree; ``elements`` numbers were compared."""

    elements: int


@dataclass(frozen=True)
class Mismatch:
    """The outputs, or the values written to leaves or inputs, differ."""

    what: str
    """The first difference, in words."""
    structural: bool = False
    """True for a difference in structure or plain values, which is visible without residues."""
    written: str | None = None
    """The leaf or input with different values written to it."""
    later: bool = False
    """True for a difference in the second call only."""


@dataclass(frozen=True)
class Failed:
    """The comparison failed; ``node`` is the graph's node where it stopped, if a graph was run."""

    reason: str
    node: fx.Node | None = None


Result = Equal | Mismatch | Failed


@dataclass(frozen=True)
class Runs:
    """The runs of both programs at one sample point."""

    first: Outcome
    second: Outcome
    numbers: tuple[frozenset[float], frozenset[float]]
    """The numbers that each program computes with, except its parameters."""
    roundings: tuple[frozenset[str], frozenset[str]]
    """The roundings of parameters to whole numbers in each program."""
    leaves: Tensors
    """Leaves of the second program that hold whole numbers, as given to the run."""
    again: tuple[Outcome, Outcome] | None = None
    """A second call of both, on other inputs and the state left by the first, if either program writes to leaves."""
    notes: tuple[str, ...] = ()
    casts: tuple[str, ...] = ()
    """Sentences on dtypes of one program only, whose roundings are read as the identity."""


@dataclass(frozen=True)
class Attempt:
    """One comparison at one sample point."""

    point: SamplePoint
    variation: Variation
    result: Result
    runs: Runs | None = None
    """None if the result is `Failed`."""
    values_seen: Recording | Cuts | None = None
    """The recording of all values, or their cut points, if the attempt made either."""

    @property
    def equal(self) -> bool:
        return isinstance(self.result, Equal)

    @property
    def failure(self) -> str | None:
        return self.result.reason if isinstance(self.result, Failed) else None

    @property
    def mismatch(self) -> Mismatch | None:
        return self.result if isinstance(self.result, Mismatch) else None

    @property
    def unequal(self) -> frozenset[int]:
        """The places of outputs that differ."""
        pairs = enumerate(zip(self.runs.first.outputs, self.runs.second.outputs)) if self.runs is not None else ()
        return frozenset(
            i
            for i, (a, b) in pairs
            if not (isinstance(a, Shadow) and isinstance(b, Shadow) and a.shape == b.shape)
            or not _are_equal(a.residue, b.residue)
        )

    @property
    def vanishing(self) -> frozenset[int]:
        """The places of outputs that are 0 in both programs."""
        pairs = enumerate(zip(self.runs.first.outputs, self.runs.second.outputs)) if self.runs is not None else ()
        return frozenset(i for i, pair in pairs if all(isinstance(x, Shadow) and _is_zero(x.residue) for x in pair))

    @property
    def zeros(self) -> dict[int, Tensor]:
        """The elements of outputs that are 0 in both programs, as masks by the places of the outputs."""
        pairs = enumerate(zip(self.runs.first.outputs, self.runs.second.outputs)) if self.runs is not None else ()
        return {
            i: torch.stack([part == 0 for part in (*a.residue.parts, *b.residue.parts)]).all(0)
            for i, (a, b) in pairs
            if isinstance(a, Shadow) and isinstance(b, Shadow) and a.shape == b.shape
        }

    def claim(self, obligation: ProofObligation) -> Claim:
        """Return the claim of this attempt, provided that the programs are equal at its sample point.

        Values read out of tensors count as choices, like branches. Those that depend on parameters alone are no choices
        while the parameters are held.
        """
        claim, point = self.variation.claim(Scope.ALL), self.point
        # Unread whole numbers, such as BatchNorm's count of batches in evaluation, do not limit the claim.
        plain = (Why.INTEGERS, Why.BOOLEANS, Why.TABLE)
        held = [h for h in claim.held if h.role is Role.INPUT or h.why not in plain or h.name in point.read]
        held += [Held(what, Role.PARAMETER, Why.UNREGISTERED) for what in point.unregistered]
        held += [Held(name, Role.PARAMETER, Why.CHOSEN) for name in sorted(point.beside)]
        for outcome in (self.runs.first, self.runs.second) if self.runs is not None else ():
            names = [name for name, x in outcome.attributes.items() if not x.is_cache]
            held += [Held(name, Role.PARAMETER, Why.ATTRIBUTE) for name in sorted(names)]
        claim = replace(claim, parameters=tuple(n for n in claim.parameters if n not in point.beside), held=tuple(held))
        escaped = [how for how, of_data in point.escapes.items() if of_data or claim.all_parameters]
        return replace(
            claim,
            held=tuple(dict.fromkeys(held)),
            derived=obligation.derived if claim.all_parameters else (),
            choices=tuple(dict.fromkeys((*point.branch, *point.asked, *escaped))),
            shapes=obligation.shapes,
        )

    @property
    def values(self) -> tuple[list[Any], list[Any]]:
        """Values of both programs' outputs."""
        assert self.runs is not None
        return [value_of(t) for t in self.runs.first.outputs], [value_of(t) for t in self.runs.second.outputs]


def attempt(
    obligation: ProofObligation,
    seed: int,
    k: int,
    parameters_vary: bool,
    semantics: Semantics = Semantics(),  # noqa: B008
    see: Callable[[], Recording | Cuts] | None = None,
) -> Attempt:
    """Run both programs at one sample point with ``k`` primes, under ``semantics``; compare outputs and effects.

    Varied values get random residues, and held ones the exact residues of their value; see `variation.vary`. ``see``
    makes what records the values of both programs, or cuts them.
    """
    variation, draws = vary(obligation, parameters_vary), []

    def run(lent: bool) -> tuple[SamplePoint, Runs, Recording | Cuts | None]:
        draws.append(SamplePoint(seed, k, semantics))
        seen = see() if see is not None else None
        visits = None if seen is None else seen.visits
        return draws[-1], run_both(obligation, draws[-1], variation, lent, visits=visits), seen

    try:
        with torch.no_grad():
            point, runs, seen = _undisturbed(lambda: lending(obligation, run))
            result = _compare_runs(point, runs)
            if isinstance(result, Equal) and point.lucky:
                chosen = ", ".join(point.lucky)
                return Attempt(point, variation, Failed(f"{chosen} follows the value of a number, which is random"))
            return Attempt(point, variation, result, runs, seen)
    except Undecided as error:
        return Attempt(draws[-1], variation, Failed(str(error), error.node))


def _undisturbed(run: Callable[[], T]) -> T:
    """Return ``run()``, repeated while a generator moves during it; only a random program moves one every time.

    Raises:
        GeneratorMoved: a generator moved in every run.
    """
    for i in range(MAX_DISTURBED_RUNS):
        try:
            return run()
        except GeneratorMoved:  # noqa: PERF203 (the loop is the retry)
            if threading.active_count() == 1 or i + 1 == MAX_DISTURBED_RUNS:
                raise
            time.sleep(0.001 * i)
    raise AssertionError("the last repeat returns or raises")


def scout(
    obligation: ProofObligation,
    seed: int,
    parameters_vary: bool,
    semantics: Semantics = Semantics(),  # noqa: B008
) -> Attempt | SamplePoint:
    """Run *before* with one prime, to measure its polynomials.

    Returns the sample point with that measure, or the failed attempt.
    """
    variation, draws = vary(obligation, parameters_vary), []

    def run(lent: bool) -> Outcome:
        draws.append(SamplePoint(seed, 1, semantics))
        leaves, inputs = _shadows_of(obligation, draws[-1], variation, lent)
        with Factories(draws[-1]):
            return _run(draws[-1], obligation.before, "first", _ours(leaves, lent), inputs)

    try:
        with torch.no_grad():
            first = _undisturbed(lambda: lending(obligation, run))
    except Undecided as error:
        return Attempt(draws[-1], variation, Failed(str(error), error.node))
    for t in (*first.outputs, *first.effects.values()):
        if isinstance(t, Shadow):
            draws[-1].observe(t.residue.size)
    return draws[-1]


def lending(obligation: ProofObligation, run: Callable[[bool], T]) -> T:
    """Return ``run(True)``, with the leaves' memory lent to the programs; after a write to it, ``run(False)``.

    Copying is put off because leaves are large, and programs rarely write to them.

    Raises:
        Undecided: leaves that overlap are written to.
    """
    try:
        return run(True)
    except WritesBorrowed:
        if obligation.overlapping:
            raise Undecided(f"{obligation.overlapping}, and one of them is written to") from None
    return run(False)


def run_both(
    obligation: ProofObligation,
    point: SamplePoint,
    variation: Variation,
    lent: bool,
    watch: tuple[Watch | None, Watch | None] = (None, None),
    visits: Visits | None = None,
) -> Runs:
    """Run both programs on the shadows of one sample point; ``watch`` sees their nodes, and ``visits`` their values.

    Raises:
        Undecided: an operator has no rule, or a program itself raises.
        WritesBorrowed: the memory of the leaves was ``lent``, and one of them is written to.
        GeneratorMoved: a random generator was used meanwhile.
    """
    leaves, inputs = _shadows_of(obligation, point, variation, lent)
    with Factories(point):
        ours = _ours(leaves, lent)
        visit_first, visit_second = visits or (None, None)
        first = _run(point, obligation.before, "first", ours, inputs, watch[0], visit=visit_first)
        numbers, roundings, dtypes = point.take_numbers(), point.take_roundings(), point.take_dtypes()
        other = obligation.after(_ours(leaves, lent))
        point.take_numbers()
        made = point.take_dtypes()  # by a pass, or the arithmetic of new parameters
        second = _run(point, other.after, "second", other.leaves, inputs, watch[1], other.names, visit=visit_second)
        require_separate(obligation.before, leaves, first.effects)
        require_separate(other.after, other.leaves, second.effects)
        constants = (numbers, point.take_numbers()), (roundings, point.take_roundings())
        casts = _tell_casts(dtypes, made | point.take_dtypes())
        again = None
        if leaves_state(first) or leaves_state(second):
            with disable_current_modes():  # `Factories` would count these inputs as made by a program
                inputs_again = _shadows_of_inputs(obligation, point, variation)

            def call_again(
                program: Program, which: str, leaves: Tensors, earlier: Outcome, names: Any, visit: Visit | None
            ) -> Outcome:
                state = state_after(leaves, earlier)
                return _run(point, program, which, state, inputs_again, None, names, earlier.attributes, visit, call=1)

            again = (
                call_again(obligation.before, "first", ours, first, None, visit_first),
                call_again(other.after, "second", other.leaves, second, other.names, visit_second),
            )
        idle = _match_effects(first, second, leaves | _numbered(inputs), other.names)
        if again is not None:
            _match_effects(*again, leaves | _numbered(inputs_again), other.names)
        notes = [f"only one program counts in {name}, which moves no statistics" for name in idle]
    point.products.forget()
    whole = {name: t for name, t in other.leaves.items() if not t.dtype.is_floating_point}
    return Runs(first, second, *constants, whole, again, tuple(notes), tuple(casts))


def _tell_casts(first: Collection[torch.dtype], second: Collection[torch.dtype]) -> list[str]:
    """Tell of dtypes in which only one program has values, where these are coarser than the other's finest."""
    told = []
    for which, one, other in (("first", first, second), ("second", second, first)):
        finest = min((torch.finfo(dtype).eps for dtype in other), default=math.inf)
        for dtype in sorted(set(one) - set(other), key=str):
            eps = torch.finfo(dtype).eps
            if eps > finest:
                told.append(
                    f"only the {which} program has values in {dtype}: a cast to it is read as the identity, though it"
                    f" rounds to {1 - round(math.log2(eps))} bits"
                )
    return told


def _run(
    point: SamplePoint,
    program: Program,
    which: str,
    leaves: Tensors,
    inputs: Any,
    watch: Watch | None = None,
    names: Mapping[str, str] | None = None,
    attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
    visit: Visit | None = None,
    call: int = 0,
) -> Outcome:
    """Run a program, and record the leaves that it reads in the sample point.

    ``names`` are the first program's names of the second's leaves, and ``call`` is the number of this call in a row.
    """
    args, kwargs = copied(inputs)
    for x in tree_leaves((args, kwargs, leaves)):
        if isinstance(x, Shadow):
            point.facts.share(x.residue)  # copies of one input are the same value for both programs
    reads = Reads()
    point.running, point.visit, point.first = True, visit, which == "first"
    try:
        with Draws(point, call) as draws, watch_chosen(point):
            outcome = run_copied(program, which, leaves, args, kwargs, watch, reads, attributes)
        outcome.generator = draws.final
    finally:
        point.running, point.visit = False, None
    point.note_chosen((outcome.outputs, outcome.effects))
    names = names or {}
    point.read |= {names.get(name, name) for name in reads.of_leaves(leaves)}
    point.beside |= {names.get(name, name) for name in reads.beside(program, leaves)}
    return outcome


def _ours(leaves: dict[str, Tensor], lent: bool) -> dict[str, Tensor]:
    return _lent(leaves) if lent else copied_leaves(leaves)


def _match_effects(
    first: Outcome, second: Outcome, originals: Mapping[str, Tensor], names: Mapping[str, str]
) -> list[str]:
    """Give the second program's effects the first one's names, and complete both; returns the counters left out."""
    second.effects = {names.get(name, name): t for name, t in second.effects.items()}
    idle = idle_counters(first, second, originals)
    for name in idle:
        (first if name in first.effects else second).effects.pop(name)
    _complete(first, second, originals)
    return idle


def _shadows_of(
    obligation: ProofObligation, point: SamplePoint, variation: Variation, lent: bool
) -> tuple[dict[str, Tensor], tuple[Any, Any]]:
    """Return shadows of the leaves, by name, and of (args, kwargs), with random residues for varied values."""

    def leaf(name: str, leaf: Leaf) -> Tensor:
        return _shadow_leaf(point, leaf, name in variation.parameters, lent)

    leaves = tied(obligation.before.leaves, leaf)
    point.take_numbers()  # numbers in parameters are no constants of a program
    return leaves, _shadows_of_inputs(obligation, point, variation)


def _shadows_of_inputs(obligation: ProofObligation, point: SamplePoint, variation: Variation) -> Any:
    given = dict(named_inputs(obligation.args, obligation.kwargs))
    shadows = [_shadow_input(point, x, name in variation.inputs) for name, x in given.items()]
    return tree_unflatten(shadows, tree_structure((obligation.args, dict(obligation.kwargs))))


def _shadow_leaf(point: SamplePoint, leaf: Leaf, varies: bool, lent: bool) -> Tensor:
    value = leaf.tensor.detach().resolve_conj().resolve_neg()
    if not is_number(value.dtype) or leaf.table:
        return clone_apart(value)
    if not lent:
        value = clone_apart(value)
    residue = (
        draw_variable(point, value, data=False, lent=lent, independent=leaf.valueless)
        if varies
        else embed_constant(point, value, lent=lent)
    )
    residue.cell.borrowed = lent
    residue.cell.contracted = isinstance(leaf.tensor, nn.Parameter)  # a buffer or an input may be a mask
    return Shadow(value, residue)


def _shadow_input(point: SamplePoint, x: Any, varies: bool) -> Any:
    if not varies:
        return x
    value = clone_apart(x.detach().resolve_conj().resolve_neg())
    return Shadow(value, draw_variable(point, value, data=True))


def _lent(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same shadows, and copies of integer tensors, which have none."""
    shadows = {name: t for name, t in leaves.items() if isinstance(t, Shadow)}
    others: dict[str, Tensor] = copied_leaves({name: t for name, t in leaves.items() if name not in shadows})
    return others | shadows


def _numbered(inputs: Any) -> dict[str, Tensor]:
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    return {f"input {i}": t for i, t in enumerate(tensors)}


def _complete(first: Outcome, second: Outcome, originals: Mapping[str, Tensor]) -> None:
    """Complete the effects: a tensor that only one program writes to keeps its value in the other."""
    for one, other in ((first, second), (second, first)):
        for name in other.effects.keys() - one.effects.keys():
            if name in originals:
                one.effects[name] = originals[name]


def _compare_runs(point: SamplePoint, runs: Runs) -> Equal | Mismatch:
    found = _compare(point, runs.first, runs.second)
    if isinstance(found, Equal) and runs.again is not None:
        once_more = _compare(point, *runs.again)
        if isinstance(once_more, Mismatch):
            return replace(once_more, what=f"in a second call, {once_more.what}", later=True)
    return found


def _compare(point: SamplePoint, first: Outcome, second: Outcome) -> Equal | Mismatch:
    if first.structure != second.structure or len(first.outputs) != len(second.outputs):
        what = (
            f"the outputs have different structures: {len(first.outputs)} ({first.structure}) before,"
            f" {len(second.outputs)} ({second.structure}) after"
        )
        return Mismatch(what, structural=True)
    if first.generator != second.generator:
        raise Undecided("the programs draw in different ways, so that the next number, which is random, is another one")
    if first.effects.keys() != second.effects.keys():
        odd = sorted(first.effects.keys() ^ second.effects.keys())
        raise Undecided(f"one program writes to {odd[0]}, which the other lacks")
    outputs = [(what, None, a, b) for what, a, b in zip(first.names, first.outputs, second.outputs)]
    effects = [(f"values written to {n}", n, first.effects[n], second.effects[n]) for n in sorted(first.effects)]
    for what, written, a, b in (*outputs, *effects):
        plain = not (isinstance(a, Tensor) and isinstance(b, Tensor) and _alike(a, b))
        found = _compare_plain(a, b) if plain else _compare_tensors(point, a, b)
        if found:
            return Mismatch(f"{what}: {found}", plain and not _may_be_rounding(point, a, b), written)
    compared = (*first.outputs, *first.effects.values())
    return Equal(sum(t.numel() for t in compared if isinstance(t, Tensor)))


def _alike(a: Tensor, b: Tensor) -> bool:
    """True if shapes and dtypes are the same, up to the precision of floating-point numbers."""
    return a.shape == b.shape and (a.dtype == b.dtype or (a.is_floating_point() and b.is_floating_point()))


def _may_be_rounding(point: SamplePoint, a: Any, b: Any) -> bool:
    """True if rounding may explain a difference of plain values: of Python floats, or of counts of true elements."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        counted = a.ndim == b.ndim and a.dtype == b.dtype
    else:
        counted = type(a) is type(b) is int
    return (isinstance(a, float) and isinstance(b, float)) or (counted and bool(point.branch or point.escapes))


def _compare_plain(a: Any, b: Any) -> str | None:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape == b.shape:
            return f"{a.dtype} before, {b.dtype} after"
        return f"shape {tuple(a.shape)} before, {tuple(b.shape)} after"
    if a is b:
        return None
    plain = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
    if (isinstance(a, plain) and isinstance(b, plain)) or isinstance(a, Tensor) or isinstance(b, Tensor):
        same = type(a) is type(b) and a == b
        return None if same else f"{_brief(a)} before, {_brief(b)} after"
    raise Undecided(f"an output is a {type(a).__name__}, which is neither a tensor nor a plain value")


def _are_equal(one: Residue, other: Residue) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parts, other.parts))


def _is_zero(residue: Residue) -> bool:
    return not any(bool(part.any()) for part in residue.parts)


def _residue(point: SamplePoint, t: Tensor) -> Residue:
    return t.residue if isinstance(t, Shadow) else embed_constant(point, t)


def _brief(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)


def _compare_tensors(point: SamplePoint, a: Tensor, b: Tensor) -> str | None:
    """Return the difference of two tensors of one shape, in words; None if there is none.

    Tensors are compared by residue if either has one, otherwise by value.
    """
    if isinstance(a, Shadow) or isinstance(b, Shadow):
        x, y = (_residue(point, t.resolve_conj().resolve_neg()) for t in (a, b))
        point.observe(x.size)
        point.observe(y.size)
        wrong = torch.zeros(a.shape, dtype=torch.bool, device=a.device)
        for p, q in zip(x.parts, y.parts):
            wrong |= p != q
    else:
        wrong = ~((a == b) | (a.isnan() & b.isnan()))
    count = int(wrong.sum())
    return f"{count} of {a.numel()} elements differ" if count else None
