"""Facts about one proof obligation, each computed when a strategy first asks for it.

Strategies share their findings through an `Inquiry`: it makes each attempt and each search once, and counts every
comparison that might have ended in a proof.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, product

from torch import Tensor, fx

from foldproof.field import PRIMES, has_root, primes_with_turns
from foldproof.graph.module import get_attribute
from foldproof.memory import release
from foldproof.operators import is_custom
from foldproof.proof.attempt import Attempt, Failed, attempt, scout
from foldproof.proof.coverage import Coverage
from foldproof.proof.difference import first_difference
from foldproof.proof.floats import (
    ROUNDED,
    Trial,
    Unrounded,
    at_numbers,
    at_other_integers,
    doubted,
    draws,
    glances,
    own_leaves,
    trials,
)
from foldproof.proof.obligation import ProofObligation
from foldproof.proof.parting import parting_modules
from foldproof.proof.reality import unrepeated
from foldproof.proof.variation import vary
from foldproof.proof.wide import SharedCopies
from foldproof.shadow import Choices, Cuts, Recording, SamplePoint, Semantics, Undecided
from foldproof.shadow.constants import radicands_of
from foldproof.shadow.turns import NAMES
from foldproof.thresholds import (
    LARGEST_COMPARED_NUMBER,
    MAX_EXPLAINED_RATIO,
    MAX_LOG2_ERROR_OF_ONE,
    MAX_PRIMES_UNCUT,
    MAX_SCALES,
    MIN_PRIMES_WITH_TURNS,
    SMALLEST_SCALE,
)
from foldproof.torch_internals import OpOverload, OpOverloadPacket
from foldproof.verdict import Difference

Progress = Callable[[int, int, str], None]


AS_IT_IS = Semantics()


@dataclass(frozen=True)
class Search:
    """Float64 evaluations: those that agree, a counterexample, or the reason for having none."""

    agreeing: tuple[Trial, ...]
    counterexample: Trial | None = None
    elsewhere: Trial | None = None
    """A difference of two given programs at these parameters, although they agree at their own."""
    failure: str | None = None

    @property
    def worst(self) -> Trial:
        """The trial with the largest difference in units of that which rounding explains."""
        return max(self.agreeing, key=lambda t: t.comparison.ratio)


class Inquiry:
    """The known facts about ``obligation``."""

    def __init__(self, obligation: ProofObligation, rng: random.Random, progress: Progress) -> None:
        self.obligation = obligation
        self._rng, self._progress = rng, progress
        self._attempts: list[Attempt] = []
        self.coverage = Coverage()

    def into(self, obligation: ProofObligation) -> Inquiry:
        """Return an inquiry into another obligation, whose comparisons count as this one's."""
        made = Inquiry(obligation, self._rng, self._progress)
        made._attempts = self._attempts
        return made

    def zero_elements_of(self, found: Attempt) -> dict[int, Tensor]:
        """Return where outputs are 0 in both programs, as `zeros_of`, by the places of the outputs."""
        return self._attempt_algebraically(found).zeros

    def _attempt_algebraically(self, found: Attempt) -> Attempt:
        """Compare once in an algebraic reading with the constants and choices of ``found``."""
        known = found.point.semantics
        semantics = replace(_algebraic_readings(found)[0], constants=known.constants, choices=known.choices)
        return self._attempt(1, bool(found.variation.parameters), semantics)

    @property
    def notes(self) -> list[str]:
        """Remarks for the verdict besides its evidence."""
        told = list(self.obligation.notes)
        told += [note for a in self._attempts if a.runs is not None for note in (*a.runs.notes, *a.runs.casts)]
        storages = [t.untyped_storage().data_ptr() for t in self.obligation.input_tensors if t.numel()]
        if len(set(storages)) < len(storages):
            told.append("inputs that share memory are treated as separate")
        return told

    # -------------------------------------------------------------- comparisons of residues

    @cached_property
    def exact(self) -> Attempt:
        """The comparison of the programs as they are, for all parameters if the obligation allows it."""
        self._progress(0, 3, "comparing residues")
        return self._attempt_in_either_reading(self.obligation.general)

    @cached_property
    def within(self) -> Attempt | None:
        """The comparison that reads roundings of only one program as the identity; None if there are none."""
        exact = self.exact.mismatch
        k: int | None = 1
        while exact is not None and not exact.structural and k is not None:
            seed = self.next_seed()
            runs = attempt(self.obligation, seed, k, self.obligation.general).runs
            if runs is None or not runs.roundings[0] ^ runs.roundings[1]:
                return None
            found = self._attempt(
                k, self.obligation.general, Semantics(within=runs.roundings[0] ^ runs.roundings[1]), seed
            )
            if not found.equal or found.point.log2_error <= MAX_LOG2_ERROR_OF_ONE:
                return found
            k = found.point.primes_needed(MAX_LOG2_ERROR_OF_ONE)
        return None

    @cached_property
    def fixed(self) -> Attempt:
        """The comparison at these parameter values."""
        if not self.obligation.general:
            return self.exact
        self._progress(1, 3, "comparing residues at these parameter values")
        return self._attempt_in_either_reading(False)

    @cached_property
    def by_value(self) -> Attempt:
        """The comparison at these parameter values, with maxima of numbers that are these for all inputs.

        If that is not enough, rectifiers follow the signs of values.
        """
        found = self._attempt_surely(False, Semantics(numbers=True))
        return found if found.equal else self._attempt_surely(False, Semantics(numbers=True, by_value=True))

    @cached_property
    def with_constants_alike(self) -> Attempt | None:
        """The comparison that reads constants as the numbers they round; None if that changes nothing or fails."""
        runs = self.last.runs
        if runs is None:
            return None
        # Each radicand makes the bounds of coefficients four times as long: those of common constants are tried last.
        numbers = ((), own_numbers(self.last), runs.numbers)
        radicands = dict.fromkeys(radicands_of(chain(*few)) for few in numbers)
        shifted = [replace(AS_IT_IS, shift_first=True)] if self.last.point.shifted else []
        whole = [Semantics(choices=self._without_choices)] if self.last.point.branch else []
        readings = *whole, AS_IT_IS, *shifted, *_algebraic_readings(self.last)
        lengths = frozenset(self.last.point.lengths)
        for parameters, reading, read in product(
            (True, False) if self.obligation.general else (False,), readings, radicands
        ):
            independent = frozenset(q for q in read if not has_root(reading.turn, q))
            semantics = replace(reading, constants=independent, lengths=lengths)
            if self._attempt(1, parameters, semantics).equal:
                found = self._attempt_surely(parameters, semantics)
                if found.equal and found.point.constants and found.point.constants.changes:
                    return found
        return None

    def zeros_of(self, found: Attempt) -> frozenset[int]:
        """Return the places of outputs that are 0 in both programs, in the reading of ``found`` or in an algebraic one.

        The gradient of a key's bias is one: it is 0 since the weights of a softmax add up to 1.
        """
        return found.vanishing | self._attempt_algebraically(found).vanishing

    @property
    def last(self) -> Attempt:
        """The most lenient comparison made so far; its failure is the one to report."""
        return self.fixed if "fixed" in self.__dict__ else self.exact

    @property
    def attempts(self) -> int:
        """Number of comparisons that might have ended in a proof."""
        return len(self._charged)

    @property
    def _charged(self) -> list[Attempt]:
        enough = [a for a in self._attempts if a.point.log2_error <= MAX_LOG2_ERROR_OF_ONE]
        return [a for a in enough if not isinstance(a.result, Failed)]

    @property
    def log2_error(self) -> float:
        """log2 of the probability that any comparison so far called different programs equal: the sum over all."""
        return math.log2(sum(2.0**a.point.log2_error for a in self._charged))

    def next_seed(self) -> int:
        """Return a fresh seed of a sample point."""
        return self._rng.getrandbits(62)

    def _attempt(
        self,
        k: int,
        parameters: bool,
        semantics: Semantics,
        seed: int | None = None,
        see: Callable[[], Recording | Cuts] | None = None,
    ) -> Attempt:
        found = attempt(self.obligation, self.next_seed() if seed is None else seed, k, parameters, semantics, see)
        self._attempts.append(found)
        release((leaf.tensor for leaf in self.obligation.before.leaves.values()), modules=self.obligation.remade)
        return found

    def _attempt_in_either_reading(self, parameters: bool) -> Attempt:
        """Compare, and once more in the algebraic readings, where one prime already shows most differences."""
        point = scout(self.obligation, self.next_seed(), parameters)
        if isinstance(point, Attempt):
            return point
        if point.branch:
            # Two programs that take the largest of the same values make the same choice for all inputs, whatever it is.
            found = self._attempt_without_choices(parameters)
            if found.equal:
                return found
        found = self._attempt_surely(parameters, point=point)
        ran = found.equal or found.mismatch is not None or found.point.lucky
        if found.point.branch and not point.branch and ran:
            without = self._attempt_without_choices(parameters)
            fewer = len(without.point.branch) < len(found.point.branch)
            found = without if without.equal and (fewer or not found.equal) else found
        if found.mismatch is None or found.mismatch.structural:
            return found
        readings = _algebraic_readings(found)
        if found.point.casts_whole:
            readings += [replace(reading, whole=True) for reading in (AS_IT_IS, *readings)]
        for semantics in readings:
            if self._attempt(1, parameters, semantics).equal:
                again = self._attempt_surely(parameters, semantics)
                return again if again.equal else found
        return found

    def _attempt_without_choices(self, parameters: bool) -> Attempt:
        """Compare with choices by value as functions."""
        semantics = Semantics(choices=self._without_choices)
        found = self._attempt_any_shift(1, parameters, semantics, None)  # it shows most differences
        return self._attempt_surely(parameters, found.point.semantics, found.point) if found.equal else found

    @cached_property
    def _without_choices(self) -> Choices:
        return Choices.UNREAD if _are_read_by_operators(self.obligation) else Choices.WHOLE

    def _attempt_any_shift(
        self, k: int, parameters: bool, semantics: Semantics, see: Callable[[], Recording | Cuts] | None
    ) -> Attempt:
        """Compare, and once more with the other shift of a softmax, where that is all that may differ."""
        found = self._attempt(k, parameters, semantics, see=see)
        if found.mismatch is None or found.mismatch.structural or not found.point.shifted or semantics.shift_first:
            return found
        again = self._attempt(k, parameters, replace(semantics, shift_first=True), see=see)
        return again if again.equal else found

    def _attempt_surely(
        self, parameters: bool, semantics: Semantics = AS_IT_IS, point: SamplePoint | Attempt | None = None
    ) -> Attempt:
        """Compare with enough primes; a run of the first program with one prime measures how many that is.

        ``point`` is the sample point of such a run, if there was one.
        """
        point = scout(self.obligation, self.next_seed(), parameters, semantics) if point is None else point
        if isinstance(point, Attempt):
            return point
        k, cuts = point.primes_needed(MAX_LOG2_ERROR_OF_ONE, evaluations=2), None
        may_cut, uncut = not semantics.rational, k
        for _ in range(4):  # the second program, which the scout did not run, may need more
            if may_cut and (k is None or k > MAX_PRIMES_UNCUT):
                recorded = self._attempt_any_shift(1, parameters, semantics, Recording)
                if not isinstance(recorded.values_seen, Recording) or recorded.mismatch is not None:
                    return recorded
                cuts, semantics = partial(Cuts, recorded.values_seen.groups()), recorded.point.semantics
                may_cut, uncut, k = False, k, recorded.point.primes_needed_with_cuts(MAX_LOG2_ERROR_OF_ONE)
            if k is None:
                break
            found = self._attempt_any_shift(max(k, 2), parameters, semantics, cuts)
            if found.mismatch is not None and cuts is not None and uncut is not None:
                cuts, k = None, uncut  # the programs agreed without the cuts, whose places do not correspond
                continue
            if not found.equal or found.point.log2_error <= MAX_LOG2_ERROR_OF_ONE:
                return found
            point = found.point
            k = point.primes_needed(MAX_LOG2_ERROR_OF_ONE)
        why = (
            f"the polynomials are too large to compare reliably (degree {point.degree}, {point.bits:.3g} bits); prove a"
            " smaller region"
            if k is None
            else "the size of the polynomials changes from one sample point to another"
        )
        return Attempt(point, vary(self.obligation, parameters), Failed(why))

    # -------------------------------------------------------------- evaluations in floating point

    @cached_property
    def search(self) -> Search:
        """The programs in float64, at their own parameters and, if the obligation allows it, at others."""
        self._progress(2, 3, "evaluating in float64")
        done: list[Trial] = []
        doubt: str | None = None
        try:
            for trial in trials(replace(self.obligation, vanishing=self.exact.vanishing)):
                if not trial.differs:
                    # An overflow at other parameters shows nothing.
                    if not (trial.redrawn and trial.comparison.unfinite):
                        done.append(trial)
                    continue
                why = doubted(self.obligation, trial) or unrepeated(self.obligation)
                if why is not None:
                    doubt = doubt or why  # another trial may be free of it
                    continue
                agrees_here = bool(done) and Search(tuple(done)).worst.comparison.ratio <= MAX_EXPLAINED_RATIO
                if trial.elsewhere and not self.obligation.remade and agrees_here:
                    return Search(tuple(done), elsewhere=trial, failure=doubt)
                return Search(tuple(done), counterexample=trial)
        except Undecided as error:
            return Search(tuple(done), failure=str(error))
        return Search(tuple(done), failure=doubt)

    def look_further(self, found: Attempt, unrounded: Unrounded = ROUNDED) -> Trial | None:
        """Search for a counterexample at inputs where values decide differently than at the given ones.

        Inputs are drawn at small scales, at the scales of all numbers that values may be compared with, and at the
        scale of the given ones until each decision took each of its outcomes. `coverage` lists the unseen outcomes.
        """
        obligation = replace(self.obligation, vanishing=found.vanishing)
        if unrounded is not ROUNDED or not obligation.remade:
            # Other parameters have other roundings, and nothing is claimed about choices of two given programs there.
            obligation = replace(obligation, general=False)
        for scale in (None, SMALLEST_SCALE, *self._scales(found)):
            found_at = self._convincing(obligation, glances(obligation, scale, self.coverage, unrounded), unrounded)
            if found_at is not None:
                return found_at
        found_at = self._convincing(
            obligation, at_numbers(obligation, _compared(found), self.coverage, unrounded), unrounded
        )
        if found_at is not None:
            return found_at
        return self._convincing(obligation, draws(obligation, self.coverage, unrounded), unrounded)

    def look_at_other_integers(self, copies: SharedCopies | None = None) -> Trial | None:
        """Search for a counterexample at other integers and booleans among the inputs; proofs hold these fixed.

        Not in a model without weights: its runs in floating point take longer than its proof. ``copies`` of parameters
        may have been made before.
        """
        if self.obligation.weightless:
            return None
        obligation = replace(self.obligation, vanishing=self.exact.vanishing)
        found = self._convincing(obligation, at_other_integers(obligation, copies or SharedCopies()))
        if found is None:
            return None
        # For some integers the result is undefined (an index that is written twice): rules refuse them.
        there = attempt(replace(self.obligation, args=found.args, kwargs=found.kwargs), self.next_seed(), 1, False)
        return found if there.failure is None else None

    def first_difference(self) -> Difference | None:
        """Return the first difference of the two graphs, or the first modules that part."""
        seed = self.next_seed()
        return first_difference(self.obligation, seed) or parting_modules(self.obligation, seed, self._lenient_readings)

    @property
    def _lenient_readings(self) -> tuple[Semantics, ...]:
        """Readings in which most values that should be equal are, the most lenient first."""
        algebraic = _algebraic_readings(self.last)[0]
        alike = replace(algebraic, constants=radicands_of(chain(*own_numbers(self.last))))
        return alike, algebraic, AS_IT_IS

    def _convincing(
        self, obligation: ProofObligation, trials: Iterator[Trial], unrounded: Unrounded = ROUNDED
    ) -> Trial | None:
        with contextlib.suppress(Undecided):  # if a program fails at one trial, earlier ones still count
            for trial in trials:
                if trial.differs and doubted(obligation, trial, unrounded) is None:
                    return trial if unrepeated(obligation) is None else None
        return None

    def _scales(self, found: Attempt) -> list[float]:
        """Return scales of inputs at which a number may matter, as 6 matters to relu6 for values of that size.

        The first are those of numbers that only one program computes with, of parameters that are a single number, and
        of computed thresholds. All others follow, because both programs may have a threshold, and differ beyond it.
        """
        single = [
            float(leaf.tensor.detach())
            for leaf in self.obligation.before.leaves.values()
            if leaf.tensor.numel() == 1 and not leaf.tensor.is_complex()
        ]
        common = chain(*found.runs.numbers) if found.runs is not None else ()
        chosen: list[float] = []
        for numbers in ({*chain(*own_numbers(found)), *single, *found.point.limits}, {*common}):
            for size in sorted({2 * abs(n) for n in numbers if 0 < abs(n) < LARGEST_COMPARED_NUMBER}, reverse=True):
                if not any(size / 2 < other < 2 * size for other in chosen):
                    chosen.append(size)
        return chosen[:MAX_SCALES]


def _are_read_by_operators(obligation: ProofObligation) -> bool:
    """Return True if both programs are graphs of operators, so that no Python code reads a tensor unseen."""
    programs = (obligation.before, obligation.other(own_leaves(obligation)).after)
    return all(nodes and all(map(_is_operator, nodes)) for nodes in (program.nodes() for program in programs))


def _is_operator(node: fx.Node) -> bool:
    """True for a node that runs no module, no subgraph, no custom operator, and no function from outside of PyTorch.

    Functions and builtins that read memory without an operator are seen (`watch_chosen`).
    """
    if node.op == "get_attr":
        owner = node.graph.owning_module
        return owner is not None and isinstance(get_attribute(owner, str(node.target)), Tensor)
    if isinstance(node.target, OpOverloadPacket):
        return not any(is_custom(getattr(node.target, name)) for name in node.target.overloads())
    if isinstance(node.target, OpOverload):
        return not is_custom(node.target)
    if node.op == "call_function":  # objects, such as custom and higher-order operators, run other code
        home = str(getattr(node.target, "__module__", None)).split(".")[0]
        return inspect.isroutine(node.target) and home in ("torch", "_operator", "builtins", "math", "foldproof")
    return node.op != "call_module"


def _compared(found: Attempt) -> set[float]:
    """Return the numbers that values may be compared with, of either sign, and 0, where signs are."""
    noted = chain(found.point.limits, *(found.runs.numbers if found.runs else ()))
    numbers = {n for n in noted if abs(n) < LARGEST_COMPARED_NUMBER}
    return {0.0, *numbers, *(-n for n in numbers)}


def _algebraic_readings(found: Attempt) -> list[Semantics]:
    """Return the readings by identities: one, if both programs computed sums, products and quotients alone.

    Those of Fourier transforms follow once more, with their coefficients as algebraic numbers.
    """
    rational = not found.point.branch and found.point.uninterpreted.keys() <= {"reciprocal", *NAMES}
    algebraic = Semantics(algebraic=True, rational=rational)
    readings = [algebraic] if rational else [algebraic, replace(algebraic, pieces=True)]
    turn = 4 * math.lcm(*found.point.lengths)
    if not found.point.lengths or len(primes_with_turns(PRIMES, turn)) < MIN_PRIMES_WITH_TURNS:
        return readings
    return [*readings, *(replace(reading, turn=turn) for reading in readings)]


def own_numbers(found: Attempt) -> tuple[frozenset[float], frozenset[float]]:
    """Return the numbers that only the first program computes with, and those that only the second does."""
    before, after = found.runs.numbers if found.runs is not None else (frozenset[float](), frozenset[float]())
    return before - after, after - before
