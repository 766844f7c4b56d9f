"""From a question to a verdict: residues first, then float64; every verdict carries its evidence."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from foldproof.program import require_ordinary
from foldproof.program.nodes import operator_name, source_of
from foldproof.proof.difference import first_difference
from foldproof.proof.floats import (
    ROUNDED,
    Trial,
    Unrounded,
    alike,
    doubted,
    evaluate,
    glances,
    insensitive,
    own_leaves,
    trials,
)
from foldproof.proof.question import Question
from foldproof.proof.reality import repeats, unreal
from foldproof.proof.residues import Attempt, attempt, scout
from foldproof.proof.steps import steps_of
from foldproof.rounding.spread import EXPLAINED
from foldproof.shadow import Reading, Undecided, all_finite
from foldproof.verdict import SAME_CHOICES, Difference, Kind, Proof, Rounding, Verdict, Witness

Progress = Callable[[int, int, str], None]

AS_IT_IS = Reading()

SMALL = 1e-3
"""Of so small inputs the epsilons of norms show."""
LARGEST = 1e6
"""Numbers beyond are for what no value reaches, such as masks of -1e9."""
SCALES = 8
"""So many scales of inputs are tried, the largest first."""


def decide(question: Question, seed: int | None = None, progress: Progress | None = None) -> Verdict:
    """Answer ``question``.

    ``seed`` fixes the draw (for reproducing a run); by default it is fresh, so that no program can be made to fit it.
    """
    start = time.perf_counter()
    for tensor in _tensors(question):
        require_ordinary("an input", tensor)
    seed = random.SystemRandom().getrandbits(62) if seed is None else seed
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        verdict = _decide(question, random.Random(seed), progress or (lambda done, total, what: None))
    notes = (*verdict.notes, *question.notes, *_held(question))
    return replace(verdict, notes=tuple(dict.fromkeys(notes)), seconds=time.perf_counter() - start)


def decide_all(questions: Sequence[Question], seed: int | None = None, progress: Progress | None = None) -> Verdict:
    """The same question at several input shapes: one verdict for all of them, or the first that is no proof."""
    proved: list[Verdict] = []
    for question in questions:
        verdict = decide(question, seed, progress)
        if verdict.proof is None:
            if len(questions) > 1:
                note = f"at the input shapes {', '.join(_shapes(question))}"
                verdict = replace(verdict, notes=(*verdict.notes, note))
            return replace(verdict, seconds=verdict.seconds + sum(v.seconds for v in proved))
        proved.append(verdict)
    # Programs that differ do so at one of these shapes at least, and had to pass there: the weakest bound holds.
    weakest = max(proved, key=lambda v: v.proof.log2_error if v.proof else 0.0)
    proofs = [v.proof for v in proved if v.proof is not None]
    assert weakest.proof is not None
    proof = replace(
        weakest.proof,
        shapes=tuple(shapes for p in proofs for shapes in p.shapes),
        opaque=tuple(dict.fromkeys(name for p in proofs for name in p.opaque)),
        branch=tuple(dict.fromkeys(name for p in proofs for name in p.branch)),
    )
    notes = tuple(dict.fromkeys(note for v in proved for note in v.notes))
    return replace(weakest, proof=proof, notes=notes, seconds=sum(v.seconds for v in proved))


def _decide(question: Question, rng: random.Random, progress: Progress) -> Verdict:
    progress(0, 3, "comparing residues")
    first = last = _attempt_surely(question, rng, question.general)
    quantified = question.quantified if question.general else question.fixed
    if first.equal:
        return _proved(question, first, quantified)
    within = _attempt_within(question, rng, first)
    if within is not None:
        return _proved_within(question, within, quantified)
    fixable = question.general and first.reason is None and bool(question.before.leaves)
    if fixable and not question.remade:
        progress(1, 3, "comparing residues at these parameter values")
        last = _attempt_surely(question, rng, False)
        if last.equal:
            return _proved(question, last, question.fixed)
    progress(2, 3, "evaluating in float64")
    if first.structural or last.structural:
        return _refuted_by_structure(question, first)
    search = _search(question)
    if search.witness is not None:
        mismatch = search.witness.shapes or first.mismatch or "the outputs differ"
        return replace(_refuted(mismatch, search.witness), difference=first_difference(question, rng.getrandbits(62)))
    if fixable and question.remade:
        # A pass that nothing refutes may still be right for these parameter values only.
        last = _attempt_surely(question, rng, False)
        if last.equal:
            return _proved(question, last, question.fixed)
    if question.by_value and first.reason is None and search.failure is None and search.elsewhere is None:
        followed = _attempt_surely(question, rng, False, Reading(by_value=True))
        if followed.equal:
            return _proved(question, followed, question.fixed)
    verdict = _from_floats(question, first, last, search, rng)
    if verdict.rounding is not None:
        witness = _glance(question, [SMALL, *_scales(question, last)])
        if witness is not None:
            difference = verdict.difference or first_difference(question, rng.getrandbits(62))
            refuted = _refuted(f"{last.mismatch}{_constants(last)}", witness)
            return replace(refuted, difference=difference, notes=verdict.notes)
    return verdict


def _refuted(how: str, witness: Trial) -> Verdict:
    return Verdict(
        Kind.REFUTED, f"a different function: {how}", quantified="the witness below", witness=_witness(witness)
    )


def _refuted_by_structure(question: Question, found: Attempt) -> Verdict:
    """Outputs that are put together differently, or plain values that differ, need no numbers to be seen."""
    inputs = tuple(tree_leaves((question.args, dict(question.kwargs))))
    told = f"the given inputs: {found.mismatch}"
    return Verdict(
        Kind.REFUTED,
        f"a different function: {found.mismatch}",
        quantified="the given inputs",
        witness=Witness(told, 0, (), 0.0, 0.0, 0.0, 0.0, inputs, own_leaves(question)),
    )


def _attempt_surely(question: Question, rng: random.Random, vary: bool, reading: Reading = AS_IT_IS) -> Attempt:
    """A scout with one prime tells how many primes a proof needs; then the proof itself."""
    found = scout(question, rng.getrandbits(62), vary, reading)
    if found.reason is not None:
        return found
    k = found.draw.primes_needed(evaluations=2)
    for _ in range(2):  # the scout did not see the second program, which may need more
        if k is None:
            break
        found = attempt(question, rng.getrandbits(62), max(k, 2), vary, reading)
        if found.mismatch is not None and found.draw.shifted and not found.structural:
            first = replace(reading, shift_first=True)
            again = attempt(question, rng.getrandbits(62), max(k, 2), vary, first)
            found = again if again.equal else found
        if not found.equal or found.draw.log2_error < -40:
            return found
        k = found.draw.primes_needed()
    found.reason = (
        f"the polynomials are too large to compare reliably (degree {found.draw.degree},"
        f" {found.draw.bits:.3g} bits); prove a smaller region"
        if k is None
        else "the size of the polynomials changes from draw to draw"
    )
    return found


def _attempt_within(question: Question, rng: random.Random, exact: Attempt) -> Attempt | None:
    """Are the programs equal but for parameters that only one of them rounds? Then the attempt that shows it."""
    k: int | None = 1
    while exact.mismatch is not None and not exact.structural and k is not None:
        seed = rng.getrandbits(62)
        before, after = attempt(question, seed, k, question.general).roundings
        if not before ^ after:
            return None
        found = attempt(question, seed, k, question.general, Reading(within=before ^ after))
        if not found.equal or not found.draw.steps:
            return None
        if found.draw.log2_error <= -40:
            return found
        k = found.draw.primes_needed()
    return None


def _proved_within(question: Question, found: Attempt, quantified: str) -> Verdict:
    """As `_proved`; each parameter that was read as exact is a step, with a bound at its own value."""
    steps, unrounded = steps_of(found)
    verdict = _proved(question, found, f"{quantified}; the bounds are for these parameter values", unrounded)
    if verdict.kind is not Kind.PROVED:
        return verdict
    parameters = "a rounded parameter" if len(steps) == 1 else f"{len(steps)} rounded parameters"
    reason = f"the same function over the real numbers, but for {parameters}"
    return replace(verdict, kind=Kind.PROVED_WITHIN, reason=reason, steps=steps)


def _proved(question: Question, found: Attempt, quantified: str, unrounded: Unrounded = ROUNDED) -> Verdict:
    if found.elements == 0:
        return Verdict(Kind.UNDECIDED, "all outputs are empty at these shapes, so nothing was compared")
    contradiction = _contradiction(question, unrounded)
    if contradiction is not None:
        return contradiction
    doubt = unreal(question, found)
    if doubt is not None:
        return Verdict(Kind.UNDECIDED, doubt)
    draw = found.draw
    if draw.branch or draw.escapes:
        elsewhere = _differs_elsewhere(question, found, unrounded)
        if elsewhere is not None:
            choosing = ", ".join([*draw.branch, *draw.escapes])
            followed = f"the outputs differ, where other choices are made than here by {choosing}"
            return _refuted(followed, elsewhere)
        # What parameters alone gave is the same as long as they are.
        if draw.branch or any(draw.escapes.values()) or not quantified.startswith(question.fixed):
            quantified += SAME_CHOICES
    proof = Proof(
        log2_error=draw.log2_error,
        degree=draw.degree,
        bits=math.ceil(draw.bits),
        opaque_evaluations=draw.evaluations,
        primes=draw.primes,
        shapes=_shapes(question),
        opaque=tuple(draw.opaque),
        branch=tuple(draw.branch),
    )
    notes = (
        *(f"{what} is held at its values" for what in draw.held),
        *(
            f"a value left the tensor world ({e}): the claim speaks of inputs and parameters that give the same there"
            for e in draw.escapes
        ),
    )
    return Verdict(
        Kind.PROVED,
        "the same function over the real numbers",
        quantified=quantified,
        proof=proof,
        notes=notes,
    )


def _contradiction(question: Question, unrounded: Unrounded) -> Verdict | None:
    """Every proof is checked against the real operators once, in float64: a wrong rule must not prove anything."""
    own = ("the given inputs and parameters", own_leaves(question), question.args, question.kwargs)
    try:
        check = evaluate(question, *own, perturbations=0, unrounded=unrounded)
        if alike(check):
            return None
        check = evaluate(question, *own, unrounded=unrounded)
        if not check.differs or doubted(question, check, unrounded):
            return None
    except Undecided:
        return None  # no float64 form of an operator: the residues stand alone
    return Verdict(
        Kind.UNDECIDED,
        "residues agree but float64 evaluations do not, so a rule of foldproof contradicts the real operator;"
        " please report it",
        witness=_witness(check),
    )


def _differs_elsewhere(question: Question, found: Attempt, unrounded: Unrounded) -> Trial | None:
    """Where programs differ that are equal as far as the given inputs and parameters make them choose."""
    if unrounded is not ROUNDED or not question.remade:
        # At other parameters others are rounded, and what two given programs choose there is not claimed.
        question = replace(question, general=False)
    return _glance(question, [None, *_scales(question, found)], unrounded)


def _glance(question: Question, scales: Sequence[float | None], unrounded: Unrounded = ROUNDED) -> Trial | None:
    """A witness that inputs of one of these scales give, if any."""
    for scale in scales:
        with contextlib.suppress(Undecided):  # where a program fails, others may still show it
            for trial in glances(question, scale, unrounded):
                if trial.differs and doubted(question, trial, unrounded) is None:
                    return trial if repeats(question) else None
    return None


@dataclass(frozen=True)
class _Search:
    """Float64 evaluations: those that agree, one that does not, or why there could be none."""

    agreeing: tuple[Trial, ...]
    witness: Trial | None = None
    elsewhere: Trial | None = None
    """Two given programs agree at their own parameters, and differ at these."""
    failure: str | None = None


def _search(question: Question) -> _Search:
    done: list[Trial] = []
    try:
        for trial in trials(question):
            if not trial.differs:
                # Where other parameters make one side overflow, nothing is learnt.
                if not (trial.elsewhere and trial.comparison.unfinite):
                    done.append(trial)
                continue
            doubt = doubted(question, trial)
            if doubt is None and not repeats(question):
                doubt = "the first program is random, or changes by being run"
            if doubt is not None:
                return _Search(tuple(done), failure=doubt)
            if trial.elsewhere and not question.remade and done and _worst(done).comparison.ratio <= EXPLAINED:
                return _Search(tuple(done), elsewhere=trial)
            return _Search(tuple(done), witness=trial)
    except Undecided as error:
        return _Search(tuple(done), failure=str(error))
    return _Search(tuple(done))


def _worst(done: Sequence[Trial]) -> Trial:
    return max(done, key=lambda t: t.comparison.ratio)


def _from_floats(question: Question, first: Attempt, last: Attempt, search: _Search, rng: random.Random) -> Verdict:
    """Neither proof nor witness: ROUNDING, if both programs could be run on residues and in float64."""
    notes = [f"a value left the tensor world: {e}" for e in first.draw.escapes]
    if search.elsewhere is not None:
        notes.append("at other parameters than these the two programs differ")
    if last.reason is not None or search.failure is not None or not any(t.elements for t in search.agreeing):
        failure = search.failure or "nothing that could be evaluated in float64 is put out"
        reason = last.reason or f"no algebraic proof ({first.mismatch}), and {failure}"
        return replace(_undecided(reason, last), notes=tuple(notes))
    worst = _worst(search.agreeing).comparison
    found = Verdict(
        Kind.UNDECIDED,
        "",
        quantified=f"{len(search.agreeing)} evaluations in float64",
        rounding=Rounding(worst.difference, worst.floor, len(search.agreeing)),
        notes=tuple(notes),
    )
    if first.written is not None and any(first.written not in t.written for t in search.agreeing):
        why = f"float64 evaluations do not see what is written to {first.written}"
        return replace(found, reason=f"no algebraic proof ({first.mismatch}), and {why}")
    if len(search.agreeing) > 1 and insensitive(*search.agreeing[:2]):
        why = "the outputs hardly depend on the inputs, so that agreeing floats say little; give inputs that matter"
        return replace(found, reason=f"no algebraic proof ({first.mismatch}), and {why}")
    if any(t.comparison.unfinite for t in search.agreeing):
        why = "no witness: one program overflows, or is not a number, where the other (or itself, rounded) is finite"
        return replace(found, reason=f"no algebraic proof ({first.mismatch}), and {why}")
    if worst.ratio > EXPLAINED:
        why = "no witness: the difference is more than rounding explains, but too small to call wrong"
        return replace(found, reason=f"no algebraic proof ({first.mismatch}), and {why}")
    agree = "but float64 evaluations differ by no more than rounding explains"
    return replace(
        found,
        kind=Kind.ROUNDING,
        reason=f"no algebraic proof ({first.mismatch}), {agree}{_constants(last)}",
        difference=first_difference(question, rng.getrandbits(62)),
    )


def _undecided(reason: str, found: Attempt) -> Verdict:
    where = found.node
    difference = Difference(where.name, operator_name(where), source_of(where)) if where is not None else None
    return Verdict(Kind.UNDECIDED, reason, difference=difference)


def _constants(found: Attempt) -> str:
    """The numbers that only one program computes with: the usual reason why there is no proof."""
    only = zip(_only(found), ("the first", "the second"))
    told = [f"{', '.join(map(repr, sorted(n)[:4]))} in {which} only" for n, which in only if n]
    return f"; constants: {'; '.join(told)}" if told else ""


def _only(found: Attempt) -> tuple[frozenset[float], frozenset[float]]:
    """Numbers that only the first computes with, and that only the second does."""
    before, after = found.numbers
    return before - after, after - before


def _scales(question: Question, found: Attempt) -> list[float]:
    """Of inputs: what a number is for may show only where values are about as large, as in relu and relu6.

    It is one that only one program computes with, or a parameter that is a single number.
    """
    single = [
        float(leaf.tensor)
        for leaf in question.before.leaves.values()
        if leaf.tensor.numel() == 1 and not leaf.tensor.is_complex()
    ]
    sizes = {2 * abs(n) for n in (*chain(*_only(found)), *single) if 0 < abs(n) < LARGEST}
    return sorted(sizes, reverse=True)[:SCALES]


def _witness(trial: Trial) -> Witness:
    c = trial.comparison
    return Witness(
        trial.description if trial.shapes is None else f"{trial.description}: {trial.shapes}",
        c.output,
        c.index,
        c.before,
        c.after,
        c.difference,
        c.floor,
        inputs=tuple(tree_leaves((trial.args, dict(trial.kwargs)))),
        parameters=dict(trial.leaves),
    )


def _shapes(question: Question) -> tuple[str, ...]:
    """The shapes of all inputs, as one word for one sample of them."""
    return (" ".join(str(tuple(t.shape)) for t in _tensors(question)),)


def _tensors(question: Question) -> list[Tensor]:
    return [t for t in tree_leaves((question.args, dict(question.kwargs))) if isinstance(t, Tensor)]


def _held(question: Question) -> list[str]:
    """What the claim does not speak of all of."""
    notes = []
    inputs = tree_leaves((question.args, dict(question.kwargs)))
    tensors = _tensors(question)
    leaves = {name: leaf.tensor for name, leaf in question.before.leaves.items()}
    if any(not t.dtype.is_floating_point for t in tensors):
        notes.append("integer and boolean inputs are held at the given values")
    if any(not isinstance(x, (Tensor, type(None))) for x in inputs):
        notes.append("inputs that are no tensors are held at the given values")
    whole = [name for name, t in leaves.items() if not (t.dtype.is_floating_point or t.dtype.is_complex)]
    if any(f"{name.removesuffix('num_batches_tracked')}running_mean" not in leaves for name in whole):
        notes.append("integer and boolean buffers are held at their values")
    if any(t.dtype.is_complex for t in leaves.values()):
        notes.append("complex parameters and buffers are held at their values")
    if question.before.form != "ExportedProgram" and any(leaf.constant for leaf in question.before.leaves.values()):
        notes.append("what observers hold (scales, zero points, extremes) is held at its values")
    if any(not all_finite(t) and bool(t.isinf().any()) for t in (*tensors, *leaves.values())):
        notes.append("infinite elements of inputs and parameters are held as they are")
    storages = [t.untyped_storage().data_ptr() for t in tensors if t.numel()]
    if len(set(storages)) < len(storages):
        notes.append("inputs that share memory are taken as separate")
    return notes
