"""Float64 evaluation of both programs, and the search for counterexamples."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foldproof.generators import seed_generators
from foldproof.layout import keep_layout, laid_out_like
from foldproof.memory import release
from foldproof.program import Leaf, Outcome, Program, copied
from foldproof.proof.coverage import Coverage
from foldproof.proof.obligation import ProofObligation, Tensors, copied_leaves, equal_content, identity, tied
from foldproof.proof.running import idle_counters, leaves_state, run_copied, state_after, state_of
from foldproof.proof.wide import SharedCopies, copy_all_wide, copy_wide
from foldproof.rounding import Comparison, Float64, compare_in_float64
from foldproof.rounding.constant_noise import ConstantNoise, Constants, amplified, mark
from foldproof.rounding.float64 import widened
from foldproof.rounding.noise import Noise
from foldproof.rounding.spread import FLOAT32_ROUNDINGS, FLOAT64_ROUNDINGS, NOTHING, Pair, perturbed
from foldproof.shadow import Undecided
from foldproof.thresholds import (
    AMPLIFIED_ROUNDING,
    CONSTANT_ROUNDINGS,
    LARGEST_SCALE,
    MAX_COVERAGE_INPUTS,
    MAX_EXPLAINED_RATIO,
    MAX_IDLE_INPUTS,
    MAX_PLACINGS,
    MIN_COUNTEREXAMPLE_RATIO,
    SMALLEST_SCALE,
    SPREAD_RUNS,
)
from foldproof.torch_internals import tree_leaves, tree_map


@dataclass(frozen=True)
class Trial:
    """One evaluation of both programs: the point, and the results."""

    description: str
    comparison: Comparison
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    leaves: Tensors
    outputs: tuple[Tensor, ...]
    written: frozenset[str]
    """Leaves and inputs that a program writes to, which are compared, too."""
    shapes: str | None = None
    redrawn: bool = False
    """True if parameters were drawn."""
    elsewhere: bool = False
    """True if some of them have values, so that the parameters are not the program's own."""
    calls: int = 1
    """Calls in a row; the later ones have other inputs than the first."""
    names: tuple[str, ...] = ()
    """The compared values in words."""
    hidden: frozenset[int] = frozenset()
    """Places of outputs that differ by less than rounding moves them, and that it moves by as much as their size; -1
    for values that are written."""

    @property
    def differs(self) -> bool:
        """True for a counterexample. Overflow rules it out, because it may spoil finite elements: exp(x)/∞ is 0."""
        return self.shapes is not None or (
            self.comparison.ratio >= MIN_COUNTEREXAMPLE_RATIO and not self.comparison.unfinite
        )

    @property
    def elements(self) -> int:
        """Number of numbers that were compared."""
        return sum(t.numel() for t in self.outputs)


@dataclass(frozen=True)
class Unrounded:
    """Parameters to evaluate as if they had not been rounded to whole numbers."""

    leaves: Tensors
    """Leaves of the second program, in float64 and in units of their steps."""
    values: tuple[Tensor, ...]
    """Values that a program itself quantizes."""


ROUNDED = Unrounded({}, ())


@dataclass(frozen=True)
class _Side:
    """One program at one point.

    Its ``own`` leaves are those that the other program lacks: the results of a fold, or a constant of its own. Runs
    take float64 ``copies`` of ``shared`` leaves.
    """

    program: Program
    which: str
    leaves: Tensors
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: Mapping[str, str]
    exact: tuple[Tensor, ...]
    own: frozenset[int]
    shared: Mapping[int, Tensor]
    copies: SharedCopies

    def run(
        self,
        noise: int | None = None,
        amplitude: float = 1.0,
        spread: float = 0.0,
        calls: int = 1,
        coverage: Coverage | None = None,
        constants: Constants | None = None,
        folded: bool = True,
    ) -> Outcome:
        """Call the program in float64 ``calls`` times in a row, and concatenate the outputs.

        With ``noise``, a seed, constants are perturbed; see `ConstantNoise`, also for ``folded``. ``constants`` records
        what the program holds beside its leaves. Effects on leaves are those of the last call, and effects on inputs
        those of the first.
        """
        generator = torch.Generator().manual_seed(noise or 0)
        # Tied leaves get one perturbation.
        epsilons = {
            id(t): _epsilon(t) * amplitude + 2 * amplified(spread, t.dtype)
            for t in self.leaves.values()
            if id(t) in self.own
        }
        once = copy_all_wide(self.leaves, self.shared, self.copies)
        own = self.program.leaves
        constant = {id(t) for name, t in self.leaves.items() if name in own and own[name].constant}
        for t in self.leaves.values():
            if noise is not None and epsilons.get(id(t)):
                once[id(t)] = perturbed(once[id(t)], epsilons[id(t)], generator)
            mark(once[id(t)], t.dtype, data=False, parameter=id(t) not in constant)
        leaves = {name: once[id(t)] for name, t in self.leaves.items()}

        inputs = self._inputs(calls)  # outside of the mode, which takes new tensors for constants
        mode = Float64(self.exact) if noise is None else ConstantNoise(generator, amplitude, spread, self.exact, folded)
        outcome = self._run_in(mode, leaves, inputs, coverage)
        del once, leaves
        release(self.leaves.values())
        if constants is not None:
            constants.note(mode)
        return outcome

    def run_rounding_float64(self, noise: int, calls: int = 1) -> Outcome:
        """Call the program as `run`, with each operator's result perturbed by what float64 may round in it."""
        mode = Float64Noise(torch.Generator().manual_seed(noise))
        once = copy_all_wide(self.leaves, self.shared, self.copies)
        leaves = {name: once[id(t)] for name, t in self.leaves.items()}
        return self._run_in(mode, leaves, self._inputs(calls), None)

    def _inputs(self, calls: int) -> list[Any]:
        """Return the inputs of each call; later ones are others: equal ones would leave some states unchanged."""

        def given(call: int) -> Any:
            others = torch.Generator().manual_seed(call)
            drawn = tree_map(lambda x: _redrawn_input(x, others) if call else x, (self.args, dict(self.kwargs)))
            return _widen_inputs(*drawn)

        return [given(call) for call in range(calls)]

    def _run_in(self, mode: Float64, leaves: Tensors, inputs: Sequence[Any], coverage: Coverage | None) -> Outcome:
        seed_generators(_seed_of(self.args))  # the same in every run, which leaves the floor alone
        watch = contextlib.nullcontext() if coverage is None else coverage.watching(self.which)
        with torch.no_grad(), mode, watch:
            outcome = run_copied(self.program, self.which, leaves, *inputs[0])
            for call in range(1, len(inputs)):
                state, attributes = state_after(leaves, outcome), outcome.attributes
                args, kwargs = inputs[call]
                later = run_copied(self.program, self.which, state, args, kwargs, attributes=attributes)
                outcome.outputs = [*outcome.outputs, *later.outputs]
                outcome.effects = {**outcome.effects, **state_of(later)}
            # Values written to memory from outside are in this mode's copy of that memory.
            outcome.outputs = [x.clone() if _is_float(x) and x.dtype != torch.float64 else x for x in outcome.outputs]
        outcome.effects = {self.names.get(name, name): t for name, t in outcome.effects.items()}
        return outcome

    def run_in_own_dtype(self) -> Outcome:
        args, kwargs = copied((self.args, dict(self.kwargs)))
        seed_generators(_seed_of(self.args))
        return run_copied(self.program, self.which, copied_leaves(self.leaves), args, kwargs)


def _seed_of(inputs: Any) -> int:
    """Return the seed of random numbers, another one for other inputs, so that more than one draw is seen."""
    floats = [x for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.is_floating_point() and x.numel()]
    return zlib.crc32(repr([float(x.detach().flatten()[0]) for x in floats]).encode())


def _widen_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return tree_map(
        lambda t: mark(copy_wide(t), t.dtype, data=True) if isinstance(t, Tensor) else t, (args, dict(kwargs))
    )


class Float64Noise(Noise):
    """While active, compute every operator in float64, and perturb its result by up to eight roundings of float64.

    A perturbation by less than one would mostly be rounded away.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator, amplitude=8 * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps)

    def _number(self, x: Any) -> Any:
        return x  # float64 holds it

    def _bound(self, x: Tensor, size: Tensor | None) -> Tensor:
        # A result that float32 holds has no error there, but was rounded in float64. Whole numbers that float64 holds
        # stay whole: a conversion to integers would cut off what is below one.
        real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        whole = (real == real.round()) & (real.abs() < 2.0**53)
        whole = whole.all(-1) if x.is_complex() else whole
        rounded = torch.where(whole, 0.0, x.abs() * torch.finfo(torch.float32).eps)
        return torch.maximum(super()._bound(x, size), rounded)


def _movement_in_float64(side: _Side, at: Comparison) -> float:
    """Return how far float64's own rounding moves the element, at most; 0 for one of an effect or a later call."""
    seen = []
    for noise in range(SPREAD_RUNS):
        outputs = [_number(x) for x in side.run_rounding_float64(noise).outputs if _is_number(x)]
        if at.output >= len(outputs) or outputs[at.output].numel() == 0:
            return 0.0
        seen.append(float(outputs[at.output][at.index]))
    return max(seen) - min(seen)


def _sides(
    obligation: ProofObligation,
    leaves: Tensors,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    unrounded: Unrounded = ROUNDED,
    copies: SharedCopies | None = None,
) -> tuple[_Side, _Side]:
    other = obligation.other(leaves)
    second = {**other.leaves, **unrounded.leaves}
    memory = {identity(t): t for t in leaves.values() if t.numel()}

    def twin(name: str, t: Tensor) -> Tensor | None:
        """Return the first program's leaf that this one equals: the same memory, or the same name and content."""
        source = leaves.get(other.names.get(name, name))
        if source is not None and equal_content(source, t):  # *after* has clones of leaves that it computes with
            return source
        return memory.get(identity(t)) if t.numel() else None

    twins = {id(t): found for name, t in second.items() if (found := twin(name, t)) is not None}
    theirs = frozenset(id(t) for name, t in second.items() if name not in other.exact) - twins.keys()
    ours = frozenset(map(id, leaves.values())) - {id(t) for t in twins.values()}
    if other.exact and not theirs:
        ours = frozenset()  # all that the second program computed from them is exact
    both = {**twins, **{id(t): t for t in twins.values()}} if _show_writes(obligation.before, other.after) else {}
    copies = copies or SharedCopies()
    return (
        _Side(obligation.before, "first", leaves, args, kwargs, {}, unrounded.values, ours, both, copies),
        _Side(other.after, "second", second, args, kwargs, other.names, unrounded.values, theirs, both, copies),
    )


def _show_writes(*programs: Program) -> bool:
    """Return True for exported programs, whose writes all count up a version; modules may write by NumPy."""
    return all(program.form == "ExportedProgram" for program in programs)


def _written(first: Outcome, second: Outcome, originals: Mapping[str, Tensor]) -> list[str]:
    """Return the comparable leaves and inputs that either writes to: known to both, or with an original value."""
    both = first.effects.keys() & second.effects.keys()
    either = (first.effects.keys() | second.effects.keys()) - set(idle_counters(first, second, originals))
    return sorted(n for n in either if n in originals or n in both)


def _numbers(first: Outcome, second: Outcome, originals: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs and effects of both, as float64 tensors."""
    names = _written(first, second, originals)
    return tuple(  # type: ignore[return-value]
        [
            _number(x)
            for x in (*o.outputs, *(o.effects[n] if n in o.effects else originals[n] for n in names))
            if _is_number(x)
        ]
        for o in (first, second)
    )


def _names(outcome: Outcome, written: Sequence[str], calls: int) -> tuple[str, ...]:
    """Return the names of `_numbers`, in words."""
    once = len(outcome.outputs) // calls
    ends = ("", " in the second call")
    outputs = [f"{outcome.names[i % once]}{ends[i // once]}" for i, x in enumerate(outcome.outputs) if _is_number(x)]
    return (*outputs, *(f"{name} after the call{'s' * (calls > 1)}" for name in written))


def _is_number(x: Any) -> bool:
    return isinstance(x, (Tensor, int, float, bool))


def _number(x: Any) -> Tensor:
    x = torch.as_tensor(x)
    return (torch.view_as_real(x.resolve_conj()) if x.dtype.is_complex else x).to(torch.float64)


def evaluate(
    obligation: ProofObligation,
    description: str,
    leaves: Tensors,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    perturbations: int = SPREAD_RUNS,
    amplitude: float = 1.0,
    spread: float = 0.0,
    unrounded: Unrounded = ROUNDED,
    coverage: Coverage | None = None,
    folded: bool = False,
    copies: SharedCopies | None = None,
    zeros: Mapping[int, Tensor] | None = None,
) -> Trial:
    """Evaluate both programs on these leaves and inputs, and measure the rounding floor by perturbed runs.

    Perturbed runs move constants by ``amplitude`` roundings and ``spread``; see `foldproof.rounding.constant_noise`.
    Results of constants are moved where the other program may hold them folded, or anyway if ``folded``.
    ``coverage`` records the decisions of the unperturbed runs. ``copies`` are shared with other evaluations. ``zeros``
    are elements of outputs, by the places of these, that are 0 by their residues: those that float64's own rounding
    moves by their own size are not compared.

    Raises:
        Undecided: a program has no float64 form, or fails.
    """
    first, second = _sides(obligation, leaves, args, kwargs, unrounded, copies)
    tensors = [t for t in tree_leaves((args, dict(kwargs))) if isinstance(t, Tensor)]
    originals = {**leaves, **{f"input {i}": t for i, t in enumerate(tensors)}}
    ours, theirs = Constants(), Constants()
    ran = first.run(coverage=coverage, constants=ours), second.run(coverage=coverage, constants=theirs)
    calls = 1
    if any(leaves_state(outcome) for outcome in ran):
        calls, description = 2, f"{description}, in two calls in a row"
        ran = first.run(calls=calls), second.run(calls=calls)
    written = frozenset(_written(*ran, originals))
    before, after = _numbers(*ran, originals)
    if [t.shape for t in before] != [t.shape for t in after]:
        shapes = f"shapes {[tuple(t.shape) for t in before]} before, {[tuple(t.shape) for t in after]} after"
        return Trial(description, NOTHING, args, kwargs, leaves, tuple(before), written, shapes, calls=calls)

    noise: dict[str, Any] = {"amplitude": amplitude, "spread": spread, "calls": calls}
    first_folded = folded or bool(second.own) or theirs.may_hold_folded(ours)
    second_folded = folded or bool(first.own) or ours.may_hold_folded(theirs)

    def perturb(i: int) -> Pair:
        before = first.run(2 * i + 1, folded=first_folded, **noise)
        after = second.run(2 * i + 2, folded=second_folded, **noise)
        one, other = _numbers(before, after, originals)
        return _blanked(one, void), _blanked(other, void)

    floats = [t for t in (*leaves.values(), *second.leaves.values(), *tensors) if t.is_floating_point()]
    double = bool(floats) and all(t.dtype == torch.float64 for t in floats)
    least = FLOAT64_ROUNDINGS if double else FLOAT32_ROUNDINGS
    places = _places_of_numbers(ran[0], calls)
    masks = {n: zeros[place] for n, place in enumerate(places) if zeros and place in zeros}
    masks = {n: mask for n, mask in masks.items() if mask.shape == before[n].shape}
    void: Mapping[int, Tensor] = _find_rounding((first, second), ran, masks, calls) if masks else {}
    before, after = (_blanked(numbers, void) for numbers in (before, after))
    comparison = compare_in_float64(before, after, None, least=least)
    if obligation.vanishing and comparison.ratio > 1:
        void = {**void, **_find_void((first, second), ran, obligation.vanishing, calls)}
        before, after = (_blanked(numbers, void) for numbers in (before, after))
        comparison = compare_in_float64(before, after, None, least=least)
    # Perturbed runs only raise the floor, which is unnecessary if the lowest one explains all.
    if perturbations and (comparison.ratio > 1 or comparison.unfinite):
        comparison = compare_in_float64(before, after, perturb, perturbations, least)
    names = _names(ran[0], sorted(written), calls)
    hidden = frozenset(places[n] if n < len(places) else -1 for n in comparison.hidden)
    made = Trial(description, comparison, args, kwargs, leaves, tuple(before), written, calls=calls, names=names)
    return replace(made, hidden=hidden)


def _find_void(
    sides: Sequence[_Side], ran: Sequence[Outcome], vanishing: Collection[int], calls: int
) -> dict[int, Tensor]:
    """Return, by place among `_numbers`, all elements of ``vanishing`` outputs that are float64's own rounding here."""
    places = [n for n, place in enumerate(_places_of_numbers(ran[0], calls)) if place in vanishing]
    void: dict[int, Tensor] = {}
    for side, outcome in zip(sides, ran):
        rounded = side.run_rounding_float64(0, calls)
        exact, moved = ([_number(x) for x in o.outputs if _is_number(x)] for o in (outcome, rounded))
        for n in places:
            size, movement = exact[n].abs(), (moved[n] - exact[n]).abs()
            if size.numel():
                found = torch.full_like(size, float(size.max() <= MIN_COUNTEREXAMPLE_RATIO * movement.max())).bool()
                void[n] = void.get(n, torch.ones_like(found)) & found
    return void


def _find_rounding(
    sides: Sequence[_Side], ran: Sequence[Outcome], zeros: Mapping[int, Tensor], calls: int
) -> dict[int, Tensor]:
    """Return, by place among `_numbers`, the ``zeros`` that float64's own rounding moves by their own size.

    Others are 0 only as constants are read: 0.33333331 - 1/3 is, and a large multiple of it is no rounding.
    """
    void = dict(zeros)
    for side, outcome in zip(sides, ran):
        runs = (outcome, *(side.run_rounding_float64(noise, calls) for noise in range(SPREAD_RUNS)))
        exact, *moved = ([_number(x) for x in o.outputs if _is_number(x)] for o in runs)
        for n in void:
            movement = torch.stack([(one[n] - exact[n]).abs() for one in moved]).amax(0)
            void[n] = void[n] & (exact[n].abs() <= MIN_COUNTEREXAMPLE_RATIO * movement)
    return void


def _places_of_numbers(outcome: Outcome, calls: int) -> list[int]:
    """Return the place of each of `_numbers`' outputs among the outputs of a call."""
    return [i % (len(outcome.outputs) // calls) for i, x in enumerate(outcome.outputs) if _is_number(x)]


def _blanked(numbers: Sequence[Tensor], void: Mapping[int, Tensor]) -> list[Tensor]:
    return [x.masked_fill(void[i], 0) if i in void else x for i, x in enumerate(numbers)]


def doubted(obligation: ProofObligation, trial: Trial, unrounded: Unrounded = ROUNDED) -> str | None:
    """Return the reason to doubt a counterexample: a jump that rounding can cause, or a difference in float64 only."""
    c, at = trial.comparison, (trial.description, trial.leaves, trial.args, trial.kwargs)
    if trial.shapes is not None:
        sides = _sides(obligation, trial.leaves, trial.args, trial.kwargs, unrounded)
        noises = (None, *range(1, 2 * SPREAD_RUNS))
        seen = [{_shapes(side.run(noise)) for noise in noises} for side in sides]
        return "rounding changes how many elements there are" if any(len(s) > 1 for s in seen) else None
    # Exact leaves are those of a port, which folds nothing that it does not hold.
    folded = not obligation.other(trial.leaves).exact
    again = evaluate(obligation, *at, 4 * SPREAD_RUNS, CONSTANT_ROUNDINGS, AMPLIFIED_ROUNDING, unrounded, folded=folded)
    if again.comparison.ratio < MAX_EXPLAINED_RATIO:
        return "the difference is a jump that rounding can cause, or that of a constant computed in another order"
    first, second = _sides(obligation, trial.leaves, trial.args, trial.kwargs, unrounded)
    if c.difference <= MIN_COUNTEREXAMPLE_RATIO * max(_movement_in_float64(side, c) for side in (first, second)):
        return "the difference is that of float64's own rounding, as where large numbers cancel"
    with torch.no_grad():
        real = [side.run_in_own_dtype() for side in (first, second)]
    outputs = [[_number(x) for x in o.outputs if _is_number(x)] for o in real]
    if any(c.output >= len(o) for o in outputs):
        return None  # a counterexample in an effect, or in a second call
    a, b = (o[c.output][c.index] for o in outputs)
    scale = float(outputs[0][c.output].abs().max())
    coarsest = max((torch.finfo(x.dtype).eps for o in real for x in o.outputs if _is_float(x)), default=0.0)
    if c.difference > min(1000 * coarsest, 1 / 8) * scale and float((a - b).abs()) < c.difference / 4:
        return "the programs differ in float64, but not in their own dtype, on which their meaning depends"
    return None


def _shapes(outcome: Outcome) -> tuple[torch.Size, ...]:
    return tuple(_number(x).shape for x in outcome.outputs if _is_number(x))


def own_leaves(obligation: ProofObligation) -> dict[str, Tensor]:
    return tied(obligation.before.leaves, lambda name, leaf: leaf.tensor.detach())


def trials(obligation: ProofObligation) -> Iterator[Trial]:
    """Evaluate at the program's own parameters and, if the obligation allows it, at others."""
    for place in _places(obligation):
        yield _flagged(evaluate(obligation, *place.point), place)


def glances(
    obligation: ProofObligation, scale: float | None, coverage: Coverage, unrounded: Unrounded = ROUNDED
) -> Iterator[Trial]:
    """Evaluate at random inputs of this root mean square; for None, at the places of the functions below.

    Yields only trials that are not alike (see `alike`); the others take one run of each program.
    """
    if scale:
        places: Iterable[_Place] = _scaled(obligation, scale)
    else:
        others = (p for p in islice(_places(obligation), 1, None) if unrounded is ROUNDED or not p.redrawn)
        places = chain(others, _opposite(obligation), _without_limits(obligation), _one_signed(obligation))
    yield from _unlike(obligation, places, coverage, unrounded)


def at_numbers(
    obligation: ProofObligation, numbers: Collection[float], coverage: Coverage, unrounded: Unrounded = ROUNDED
) -> Iterator[Trial]:
    """Evaluate like `glances`, at random inputs with one element each that equals one of these numbers.

    These elements are in another place of each input: a product, or a choice, of two zeros shows little. Half of the
    elements, at most, are such numbers; where these are more, they are tried one after the other.
    """
    if not numbers:
        return
    values = sorted(numbers, key=abs)
    floats = [x for x in tree_leaves((obligation.args, dict(obligation.kwargs))) if _is_float(x) and x.numel()]
    rounds = math.ceil(len(values) / min((_room(x, values) for x in floats), default=1))
    inputs = count()

    def placed(x: Tensor, start: int) -> Tensor:
        out, first = widened(x).clone().flatten(), next(inputs)
        few = [values[(start * len(values) // rounds + i) % len(values)] for i in range(_room(x, values))]
        at = [(first + i * (out.numel() // len(few))) % out.numel() for i in range(len(few))]
        out[at] = torch.tensor(few, dtype=out.dtype)
        return out.reshape(x.shape)  # type: ignore[no-any-return]

    for start in range(min(rounds, MAX_PLACINGS)):
        what = "random inputs with elements that equal numbers of the programs"
        places = _other_inputs(obligation, what, partial(placed, start=start))
        yield from _unlike(obligation, places, coverage, unrounded)


def _room(x: Tensor, values: Sequence[float]) -> int:
    """Return how many of these numbers an input takes at once."""
    return min(len(values), max(x.numel() // 2, min(x.numel(), 1)))


def draws(obligation: ProofObligation, coverage: Coverage, unrounded: Unrounded = ROUNDED) -> Iterator[Trial]:
    """Evaluate like `glances`, at fresh random inputs, until all outcomes were seen or some inputs show no new one."""
    given = (obligation.args, dict(obligation.kwargs))
    if not any(_is_float(x) for x in tree_leaves(given)):
        return
    idle = 0
    for seed in range(1, MAX_COVERAGE_INPUTS + 1):
        if not coverage.uncovered or idle == MAX_IDLE_INPUTS:
            return
        generator = torch.Generator().manual_seed(seed)
        args, kwargs = tree_map(lambda x: _redrawn_input(x, generator), given)
        coverage.changed = False
        place = _Place("random inputs, the given parameters", own_leaves(obligation), args, kwargs)
        yield from _unlike(obligation, [place], coverage, unrounded)
        idle = 0 if coverage.changed else idle + 1


def _unlike(
    obligation: ProofObligation, places: Iterable[_Place], coverage: Coverage, unrounded: Unrounded
) -> Iterator[Trial]:
    for place in places:
        if not alike(evaluate(obligation, *place.point, perturbations=0, unrounded=unrounded, coverage=coverage)):
            yield _flagged(evaluate(obligation, *place.point, unrounded=unrounded), place)


def alike(trial: Trial) -> bool:
    """True if the outputs agree to four digits, so that no floor is needed."""
    return trial.shapes is None and trial.comparison.agree


class _Place(NamedTuple):
    """A point for `evaluate`; ``redrawn`` and ``elsewhere`` are those of `Trial`."""

    description: str
    leaves: Tensors
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    redrawn: bool = False
    elsewhere: bool = False

    @property
    def point(self) -> tuple[str, Tensors, tuple[Any, ...], Mapping[str, Any]]:
        return self.description, self.leaves, self.args, self.kwargs


def _flagged(trial: Trial, place: _Place) -> Trial:
    return replace(trial, redrawn=place.redrawn, elsewhere=place.elsewhere)


def _places(obligation: ProofObligation) -> Iterator[_Place]:
    """Yield the given point, random inputs, and other parameters: those without values, and all if that is asked for.

    Parameters without values are variables, so that other ones are as much the program's own. No place is that of
    another one again, as with constants alone there would be.
    """
    leaves, args, kwargs = own_leaves(obligation), obligation.args, obligation.kwargs
    yield _Place("the given inputs and parameters", leaves, args, kwargs)
    generator = torch.Generator().manual_seed(0)
    random_args, random_kwargs = tree_map(lambda x: _redrawn_input(x, generator), (args, dict(kwargs)))
    drawable = any(_is_float(leaf.tensor) and not leaf.constant for leaf in obligation.before.leaves.values())
    if any(_is_float(x) for x in tree_leaves((args, dict(kwargs)))):  # tokens cannot be redrawn
        yield _Place("random inputs, the given parameters", leaves, random_args, random_kwargs)
    elif obligation.remade and drawable:
        # Nor can they be small, which shows the epsilons of norms, or large, which shows limits.
        for what, scale, axes in (("small", SMALLEST_SCALE, (2, 3, 4, 5)), ("large", LARGEST_SCALE, (0, 1))):
            other = _scaled_leaves(obligation.before.leaves, generator, scale, axes)
            yield _Place(f"{what} random parameters", {**leaves, **other}, args, kwargs, True, True)
    valueless = {name: leaf for name, leaf in obligation.before.leaves.items() if leaf.valueless}
    if not drawable:
        return
    for elsewhere, redrawn in ((False, valueless), (True, obligation.before.leaves)):
        if not redrawn or (elsewhere and (not obligation.general or len(redrawn) == len(valueless))):
            continue
        for what, drawn in _other_parameters(redrawn, generator):
            yield _Place(what, {**leaves, **drawn}, random_args, random_kwargs, True, elsewhere)


def _scaled_leaves(
    leaves: Mapping[str, Leaf], generator: torch.Generator, scale: float, axes: Collection[int]
) -> dict[str, Tensor]:
    """Draw parameters with so many axes at another scale, matrices or vectors; the others are not returned."""
    drawn = redrawn_leaves(leaves, generator, 1.0, 1.0)
    chosen = {n: x for n, x in drawn.items() if _is_float(x) and x.ndim in axes and not leaves[n].constant}
    made = {id(x): keep_layout(x, x * scale) for x in chosen.values()}
    return {name: made[id(x)] for name, x in chosen.items()}


def _other_parameters(leaves: Mapping[str, Leaf], generator: torch.Generator) -> Iterator[tuple[str, Tensors]]:
    # The last one makes variances tiny, which shows changes of an epsilon.
    for spread, shrink in ((1.0, 1.0), (4.0, 1.0), (1.0, 1e-5)):
        yield "random inputs and parameters", redrawn_leaves(leaves, generator, spread, shrink)
    drawn = redrawn_leaves(leaves, generator, 1.0, 1.0)
    signed = _with_random_signs(leaves, drawn, generator)
    if signed is not None:
        yield "random inputs and parameters of both signs", signed


def _with_random_signs(leaves: Mapping[str, Leaf], drawn: Tensors, generator: torch.Generator) -> Tensors | None:
    """Give the ``drawn`` parameters that have no negative element random signs; None if there are none.

    A parameter is free to become negative in training. Buffers keep their signs: variances are among them.
    """
    made: dict[int, Tensor] = {}
    for name, leaf in leaves.items():
        x = drawn[name]
        free = isinstance(leaf.tensor, nn.Parameter) and x.dtype.is_floating_point and not leaf.constant
        if free and id(x) not in made and bool((x >= 0).all()) and bool((x > 0).any()):
            signs = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
            made[id(x)] = keep_layout(x, x * signs.to(x.dtype).to(x.device))
    return {name: made.get(id(x), x) for name, x in drawn.items()} if made else None


def _opposite(obligation: ProofObligation) -> Iterator[_Place]:
    """Yield inputs of the other sign, larger than `_places`' random ones, to reach the other side of thresholds."""
    return _other_inputs(obligation, "large random inputs", lambda x: widened(x) * -4)


def _one_signed(obligation: ProofObligation) -> Iterator[_Place]:
    """Yield inputs that are all positive, and all negative, some way from 0: no random ones show a negative maximum."""

    def sized(x: Tensor) -> Tensor:
        return 4 * (widened(x).abs() + _rms(x))  # type: ignore[no-any-return]

    yield from _other_inputs(obligation, "positive random inputs", sized)
    yield from _other_inputs(obligation, "negative random inputs", lambda x: -sized(x))


def _without_limits(obligation: ProofObligation) -> Iterator[_Place]:
    """Yield inputs with ordinary numbers in place of limits of the dtype, which keep their place in other trials."""
    generator = torch.Generator().manual_seed(0)

    def unlimited(x: Any) -> Any:
        if not _is_float(x):
            return x
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64) * _rms(x)
        return torch.where(x.isfinite() & ~_is_ordinary(x), drawn.to(x.dtype).to(x.device), x)

    for place in _other_inputs(obligation, "random inputs without limits of the dtype", lambda x: x):
        args, kwargs = tree_map(unlimited, (place.args, dict(place.kwargs)))
        given = zip(tree_leaves((place.args, dict(place.kwargs))), tree_leaves((args, kwargs)))
        if any(_is_float(x) and not torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in given):
            yield place._replace(args=args, kwargs=kwargs)


def _scaled(obligation: ProofObligation, scale: float) -> Iterator[_Place]:
    def scaled(x: Tensor) -> Tensor:
        # Leaves room up to the largest number, since a normal number is hardly as large as 8.
        wide: Tensor = widened(x) * (min(scale, torch.finfo(x.dtype).max / 8) / _rms(x))
        return wide

    return _other_inputs(obligation, f"random inputs of scale {scale:.3g}", scaled)


def _other_inputs(obligation: ProofObligation, what: str, change: Callable[[Tensor], Tensor]) -> Iterator[_Place]:
    if any(_is_float(x) for x in tree_leaves((obligation.args, dict(obligation.kwargs)))):
        random = next(islice(_places(obligation), 1, None))
        args, kwargs = random.args, dict(random.kwargs)
        args, kwargs = tree_map(lambda x: _with_ordinary(x, change(x)) if _is_float(x) else x, (args, kwargs))
        yield _Place(f"{what}, the given parameters", own_leaves(obligation), args, kwargs)


def at_other_integers(obligation: ProofObligation, copies: SharedCopies) -> Iterator[Trial]:
    """Evaluate with other integers and booleans among the inputs, if the programs accept them; skip what is alike."""
    for place in _other_integers(obligation):
        with contextlib.suppress(Undecided):  # indices out of range
            if not alike(evaluate(obligation, *place.point, perturbations=0, copies=copies)):
                yield evaluate(obligation, *place.point, copies=copies)


def _other_integers(obligation: ProofObligation) -> Iterator[_Place]:
    """Yield other integers and booleans in place of the given ones, which programs may refuse.

    Integers are drawn from the range of the given ones, from one with the next number (an index may have no further),
    from a larger one, and from all numbers of a short dtype, whose products overflow. Booleans are drawn at random, all
    true, all false, and flipped.
    """
    given = (obligation.args, dict(obligation.kwargs))
    if not any(isinstance(x, Tensor) and not _is_float(x) for x in tree_leaves(given)):
        return
    generator = torch.Generator().manual_seed(0)
    for change in (
        _redrawn_within,
        _flipped,
        _redrawn_next,
        _redrawn_beyond,
        _redrawn_over_dtype,
        _all_true,
        _all_false,
    ):
        args, kwargs = tree_map(lambda x: _changed(x, change, generator), given)
        if all(a is b for a, b in zip(tree_leaves((args, kwargs)), tree_leaves(given))):
            continue
        yield _Place("other integers and booleans, the given parameters", own_leaves(obligation), args, kwargs)


def _changed(x: Any, change: Callable[[Tensor, torch.Generator], Tensor], generator: torch.Generator) -> Any:
    """Return an input with other integers or booleans in the same layout, which a program may read; others as given."""
    if not isinstance(x, Tensor) or _is_float(x) or not x.numel():
        return x
    made = change(x, generator)
    return made if made is x else laid_out_like(x, made)


def _limits(x: Tensor) -> tuple[int, int]:
    wide = x.long()  # PyTorch has no minimum of uint16
    return int(wide.min()), int(wide.max())


def _largest(dtype: torch.dtype) -> int:
    return min(torch.iinfo(dtype).max, torch.iinfo(torch.int64).max)  # no operator takes a larger one of uint64


def _redrawn_within(x: Tensor, generator: torch.Generator) -> Tensor:
    if x.dtype is torch.bool:
        return (torch.rand(x.shape, generator=generator) < 0.5).to(x.device)
    low, high = _limits(x)
    return torch.randint(low, high + 1, x.shape, generator=generator).to(x.dtype).to(x.device)


def _redrawn_next(x: Tensor, generator: torch.Generator) -> Tensor:
    if x.dtype is torch.bool:
        return x
    low, high = _limits(x)
    low, high = min(low, 0), high + 1
    drawn = torch.randint(low, high + 1, x.shape, generator=generator).clamp(max=_largest(x.dtype))
    drawn.view(-1)[-1], drawn.view(-1)[0] = low, min(high, _largest(x.dtype))
    return drawn.to(x.dtype).to(x.device)


def _redrawn_over_dtype(x: Tensor, generator: torch.Generator) -> Tensor:
    if x.dtype is torch.bool or x.element_size() > 2:
        return x
    info = torch.iinfo(x.dtype)
    drawn = torch.randint(info.min, info.max + 1, x.shape, generator=generator)
    drawn.view(-1)[-1], drawn.view(-1)[0] = info.min, info.max
    return drawn.to(x.dtype).to(x.device)


def _redrawn_beyond(x: Tensor, generator: torch.Generator) -> Tensor:
    if x.dtype is torch.bool:
        return _redrawn_within(x, generator)
    low, high = _limits(x)
    high = min(2 * max(high, -low) + 3, _largest(x.dtype))
    low = -high if low < 0 else 0
    return torch.randint(low, high + 1, x.shape, generator=generator).to(x.dtype).to(x.device)


def _flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    return ~x if x.dtype is torch.bool else x.long().flip(0).to(x.dtype) if x.ndim else x


def _all_true(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.ones_like(x) if x.dtype is torch.bool else x


def _all_false(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(x) if x.dtype is torch.bool else x


def unlike_in_own_dtype(obligation: ProofObligation) -> str | None:
    """Return the difference of the programs in their own dtypes, if only one result is finite there, in words.

    None if there is no such difference.
    """
    first, second = _sides(obligation, own_leaves(obligation), obligation.args, obligation.kwargs)
    with torch.no_grad():
        one, other = (side.run_in_own_dtype() for side in (first, second))
    for i, (a, b) in enumerate(zip(one.outputs, other.outputs)):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape):
            continue
        x, y = _number(a), _number(b)
        odd = int((x.isfinite() != y.isfinite()).sum() + (x.isinf() & y.isinf() & (x != y)).sum())
        if odd:
            return f"in their own dtypes, {odd} of {x.numel()} elements of output {i} are finite in one program only"
    return None


def _rms(x: Tensor) -> float:
    """Return the root mean square of ordinary elements; 1 if it is 0, or if there are none."""
    ordinary = widened(x)[_is_ordinary(x)]
    return (float(ordinary.abs().square().mean().sqrt()) if ordinary.numel() else 0.0) or 1.0


def _is_ordinary(x: Tensor) -> Tensor:
    """Return True for numbers; infinities and limits of the dtype belong to masks, and keep their place."""
    small: Tensor = widened(x).abs() < torch.finfo(x.dtype).max / 16
    return x.isfinite() & small


def _with_ordinary(x: Tensor, changed: Tensor) -> Tensor:
    return keep_layout(x, torch.where(_is_ordinary(x), changed.to(x.dtype).to(x.device), x))


def _epsilon(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if _is_float(x) else 0.0


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.dtype.is_floating_point or x.dtype.is_complex)


def _redrawn_input(x: Any, generator: torch.Generator) -> Any:
    if not _is_float(x):
        return x
    drawn = torch.randn(x.shape, generator=generator, dtype=widened(x.dtype)) * _rms(x)
    return _with_ordinary(x, drawn)


def redrawn_leaves(
    leaves: Mapping[str, Leaf], generator: torch.Generator, spread: float, shrink: float
) -> dict[str, Tensor]:
    """Draw other parameters: noise added, or log-normal factors times ``shrink`` if none is negative (variances)."""
    made: dict[int, Tensor] = {}
    out = {}
    for name, leaf in leaves.items():
        x = leaf.tensor.detach()
        if x.data_ptr() not in made or not x.numel():
            fixed = leaf.constant or not _is_float(x)
            made[x.data_ptr()] = x if fixed else keep_layout(x, _redrawn(x, generator, spread, shrink))
        drawn = made[x.data_ptr()]
        out[name] = drawn if drawn.shape == x.shape else x
    return out


def _redrawn(x: Tensor, generator: torch.Generator, spread: float, shrink: float) -> Tensor:
    held = x.untyped_storage().nbytes() // x.element_size()
    if held < x.numel():  # values of a model without weights repeat a few numbers, which stay few
        few = _redrawn(x.as_strided((held,), (1,), 0), generator, spread, shrink)
        return few.as_strided(x.shape, x.stride(), x.storage_offset())
    if x.is_complex():
        return torch.view_as_complex(_redrawn(torch.view_as_real(x.resolve_conj()), generator, spread, shrink))
    if x.numel() > _LARGE and x.dtype != torch.float64:
        return _redrawn_large(x, generator, spread, shrink)
    old = x.to(device="cpu", dtype=torch.float64)
    factor = torch.exp(spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(1e-6, 1e3)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    scale = (float(old.square().mean().sqrt()) if x.numel() else 0.0) or 0.1
    positive = bool((old >= 0).all()) and bool((old > 0).any())
    new = (old + 1e-3 * scale) * factor * shrink if positive else old + scale * noise
    return new.to(x.dtype).to(x.device)


def _redrawn_large(x: Tensor, generator: torch.Generator, spread: float, shrink: float) -> Tensor:
    """Draw as `_redrawn`, in float32, which takes a fraction of the time."""
    new = torch.randn(x.shape, generator=generator)
    old = x.to(device="cpu", dtype=torch.float32)
    scale = float(old.square().mean().sqrt()) or 0.1
    if bool((old >= 0).all()) and bool((old > 0).any()):
        new = new.mul_(spread).exp_().clamp_(1e-6, 1e3).mul_(old + 1e-3 * scale).mul_(shrink)
    else:
        new = new.mul_(scale).add_(old)
    return new.to(x.dtype).to(x.device)


_LARGE = 1 << 16
"""Number of elements from which on other parameters are drawn in float32."""


def ignore_inputs(obligation: ProofObligation, agreeing: Sequence[Trial]) -> bool:
    """Return True if the outputs hardly depend on the inputs, which makes comparing them weak evidence.

    Where only the given inputs were tried, because no tokens can be drawn, other ones that the programs accept tell.
    """
    first, *others = agreeing
    if others:
        return _are_equal(first, others[0])
    copies, tried = SharedCopies(), False
    for place in _other_integers(obligation):
        with contextlib.suppress(Undecided):  # indices out of range
            if not _are_equal(first, evaluate(obligation, *place.point, perturbations=0, copies=copies)):
                return False
            tried = True
    return tried


def _are_equal(first: Trial, second: Trial) -> bool:
    """Return True if the outputs are the same but for their last digits; False without outputs."""
    for a, b in zip(first.outputs, second.outputs):
        if a.numel() and not (a.shape == b.shape and float((a - b).abs().max()) <= 1e-6 * float(a.abs().max())):
            return False
    return any(a.numel() for a in first.outputs)
