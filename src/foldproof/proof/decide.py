"""Deciding a proof obligation: a list of strategies, tried in order until one has a verdict.

What is claimed when, and why it is sound
-----------------------------------------
Programs are functions of their inputs and parameters over the real numbers: PyTorch's operators without rounding. They
are compared by *polynomial identity testing* (Schwartz 1980, Zippel 1979). Inputs and parameters get random residues
over several prime fields, and both programs compute on them exactly. Operators that are no polynomials become
*uninterpreted functions*: random functions of their operands' residues. Different programs agree at such a sample point
with a probability bounded by `Inquiry.log2_error`, so that agreement proves them equal. Two programs that are equal for
every interpretation of the uninterpreted functions are equal for the real one. The converse fails, so that a mismatch
of residues alone refutes nothing.

PROVED therefore requires equal residues and three further checks, for facts that residues do not show:

* The shadow run was a run of the real program (`reality`): the values beside the residues are those of the owner's
  call.
* The rules agree with the real operators: one float64 evaluation agrees with the residues.
* Choices by value (the place of a maximum, an index) are searched for counterexamples at other inputs. The claim is
  then limited to inputs where both programs make the same choices. Other integers and booleans are searched, too, since
  a proof holds them at their values.

PROVED_WITHIN is a proof that reads some roundings of parameters as the identity. Each is a named step with a bound.

REFUTED always carries a counterexample: real inputs and parameters at which float64 evaluations differ by far more
than rounding explains. A jump caused by rounding does not count, nor does a difference that is absent in the programs'
own dtypes. Outputs of different structure, and plain values that differ, are their own counterexample.

ROUNDING means that there is neither proof nor counterexample, that both programs ran on residues and in float64, and
that rounding explains their differences. Everything else is UNDECIDED, with a reason.

The order of strategies affects the wording, never soundness: each verdict stands on its own evidence. A pass that runs
again at other parameters (``remade``) has to be correct there, so a counterexample takes precedence over a proof at
these parameter values. Two given programs may be equal at their own parameters only.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from foldproof.claim import Claim, Scope
from foldproof.generators import kept_generators
from foldproof.graph.text import operator_name, source_of
from foldproof.program import require_ordinary
from foldproof.proof.attempt import Attempt, Equal, Failed, Mismatch
from foldproof.proof.floats import (
    ROUNDED,
    Trial,
    Unrounded,
    alike,
    doubted,
    evaluate,
    ignore_inputs,
    own_leaves,
    unlike_in_own_dtype,
)
from foldproof.proof.inquiry import Inquiry, Progress, Search, own_numbers
from foldproof.proof.obligation import ProofObligation
from foldproof.proof.reality import unreal, unrepeated
from foldproof.proof.repeats import shorten
from foldproof.proof.steps import steps_of
from foldproof.proof.variation import vary
from foldproof.proof.wide import SharedCopies
from foldproof.shadow import Cuts, Undecided, WritesBorrowed, list_jumps, may_jump
from foldproof.shadow.constants import told
from foldproof.thresholds import MAX_EXPLAINED_RATIO, MAX_RELATIVE_SPREAD
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import ApproximationStep, Counterexample, Difference, Kind, Proof, Rounding, Verdict, weakest

Strategy = Callable[[Inquiry], Verdict | None]


def decide(
    obligation: ProofObligation,
    seed: int | None = None,
    progress: Progress | None = None,
    strategies: Sequence[Strategy] | None = None,
) -> Verdict:
    """Return the verdict on ``obligation``, by the first of the ``strategies`` that has one: `STRATEGIES`, or `PROOFS`.

    ``seed`` fixes the sample points, to reproduce a run. By default it is fresh, so that no program can be made to fit.
    """
    start = time.perf_counter()
    for tensor in obligation.input_tensors:
        require_ordinary("an input", tensor)
    rng = random.Random(random.SystemRandom().getrandbits(62) if seed is None else seed)
    inquiry = Inquiry(obligation, rng, progress or (lambda done, total, what: None))
    with torch.inference_mode(False), kept_generators():
        verdict = next(found for strategy in strategies or STRATEGIES if (found := strategy(inquiry)) is not None)
    numeric = verdict.kind in (Kind.REFUTED, Kind.ROUNDING) and _differ_in_structure(inquiry) is None
    if obligation.untied is not None and numeric:
        # A proof for independent tensors holds for these. A difference of independent ones need be none of these.
        why = f"{obligation.untied} and have no values, so they are read as independent; give them values"
        verdict = Verdict(Kind.UNDECIDED, why)
    notes = [*verdict.notes, *inquiry.notes]
    if seed is not None and verdict.proof is not None:
        notes.append("the seed is fixed, so the error bound does not hold for programs that were made to fit it")
    return replace(verdict, notes=tuple(dict.fromkeys(notes)), seconds=time.perf_counter() - start)


def decide_all(
    obligations: Sequence[ProofObligation],
    seed: int | None = None,
    progress: Progress | None = None,
    strategies: Sequence[Strategy] | None = None,
) -> Verdict:
    """Decide one obligation at several input shapes: one verdict for all of them, or the first that is no proof."""
    proved: list[Verdict] = []
    for obligation in obligations:
        verdict = decide(obligation, seed, progress, strategies)
        if verdict.proof is None:
            if len(obligations) > 1:
                note = f"at the input shapes {', '.join(obligation.shapes)}"
                verdict = replace(verdict, notes=(*verdict.notes, note))
            return replace(verdict, seconds=verdict.seconds + sum(v.seconds for v in proved))
        proved.append(verdict)
    return weakest(proved)


AT_SINGLE_POINTS = (
    "elementary functions are read by their identities: at single points, as where a divisor is 0, values may differ"
)

DRAWN = "both programs draw the same random numbers in the same order, from any state of PyTorch's generator"

FROM_ONE_STATE = "both programs draw random numbers from an equal state of PyTorch's generator"

# ------------------------------------------------------------------------------------------------ strategies


def prove_layers_once(inquiry: Inquiry) -> Verdict | None:
    """Prove programs of layers that repeat by one of them, for all parameters."""
    try:
        shorter = shorten(inquiry.obligation)
    except Undecided:  # the programs fail by themselves, as other strategies tell
        return None
    if shorter is None:
        return None
    part = inquiry.into(shorter.obligation)
    try:
        if not shorter.stands_for_whole(part.exact, inquiry.next_seed()):
            return None
    except (Undecided, WritesBorrowed):
        return None
    verdict = _proved(part, part.exact)
    if verdict.kind is not Kind.PROVED or verdict.claim is None:
        return None
    claim = replace(shorter.claim(part.exact), uncovered=verdict.claim.uncovered)
    return replace(verdict, claim=claim, notes=(*verdict.notes, *shorter.told))


def prove_exactly(inquiry: Inquiry) -> Verdict | None:
    """Prove equality by residues for all parameters, or for these if the obligation asks for no more."""
    return _proved(inquiry, inquiry.exact) if inquiry.exact.equal else None


def prove_within(inquiry: Inquiry) -> Verdict | None:
    """Prove equality by residues, with some roundings of parameters read as the identity."""
    found = inquiry.within
    if found is None or not found.equal or not found.point.steps:
        return None
    steps, unrounded = steps_of(found)
    verdict = _proved(inquiry, found, unrounded)
    if verdict.kind is not Kind.PROVED or verdict.claim is None:
        return verdict
    parameters = "a rounded parameter" if len(steps) == 1 else f"{len(steps)} rounded parameters"
    reason = f"the same function over the real numbers, but for {parameters}"
    claim = replace(verdict.claim, local_bounds=True)
    return replace(verdict, kind=Kind.PROVED_WITHIN, reason=reason, claim=claim, steps=steps)


def prove_at_these_parameters(inquiry: Inquiry) -> Verdict | None:
    """Prove two given programs equal by residues with their parameters held."""
    return None if inquiry.obligation.remade else _proved_at_these_parameters(inquiry)


def refute_by_structure(inquiry: Inquiry) -> Verdict | None:
    """Refute outputs of different structure, or plain values that differ; no evaluation is needed."""
    found, obligation = _differ_in_structure(inquiry), inquiry.obligation
    if found is None:
        return None
    inputs = tuple(tree_leaves((obligation.args, dict(obligation.kwargs))))
    shown = Counterexample(f"the given inputs: {found.what}", 0, (), 0.0, 0.0, 0.0, 0.0, inputs, own_leaves(obligation))
    return Verdict(
        Kind.REFUTED, f"a different function: {found.what}", claim=_claim_of_point(obligation), counterexample=shown
    )


def _differ_in_structure(inquiry: Inquiry) -> Mismatch | None:
    return next((a.mismatch for a in (inquiry.exact, inquiry.last) if a.mismatch and a.mismatch.structural), None)


def stop_where_rounding_is_not_known(inquiry: Inquiry) -> Verdict | None:
    """Stop if the programs round parameters differently and no step describes that: it may be the only difference."""
    found = inquiry.within
    return _undecided(found.failure, found) if found is not None and found.failure is not None else None


def refute_by_value(inquiry: Inquiry) -> Verdict | None:
    """Find a counterexample by float64 evaluations at the given inputs, at random ones, and at other parameters."""
    found = inquiry.search.counterexample
    if found is None:
        return None
    mismatch = inquiry.exact.mismatch
    how = found.shapes or (mismatch.what if mismatch else "the outputs differ")
    return replace(_refuted(inquiry, how, found), difference=inquiry.first_difference())


def prove_pass_at_these_parameters(inquiry: Inquiry) -> Verdict | None:
    """Prove a pass that nothing refutes at these parameter values, where it may be correct only."""
    return _proved_at_these_parameters(inquiry) if inquiry.obligation.remade else None


def prove_by_value(inquiry: Inquiry) -> Verdict | None:
    """Prove equality by residues with maxima of numbers, if float64 evaluations agree; see `Inquiry.by_value`."""
    if not inquiry.obligation.by_value or inquiry.exact.failure is not None or not inquiry.by_value.equal:
        return None
    search = inquiry.search
    if search.failure is not None or search.counterexample is not None:
        return None
    verdict = _proved(inquiry, inquiry.by_value)
    if search.elsewhere is None or verdict.kind is not Kind.PROVED:
        return verdict
    # A scale that moved past a rectifier is right for its own sign only.
    return replace(verdict, notes=(*verdict.notes, "at other parameters the programs differ"))


def explain_by_rounding(inquiry: Inquiry) -> Verdict | None:
    """Return ROUNDING if rounding explains all float64 evaluations, at other scales, too; otherwise UNDECIDED."""
    verdict, last = _judge_floats(inquiry), inquiry.last
    if verdict.rounding is None:
        return verdict
    found = inquiry.look_further(last)
    if found is not None:
        what = last.mismatch.what if last.mismatch else "the outputs differ"
        refuted = _refuted(inquiry, f"{what}{_tell_constants(last)}", found)
        return replace(refuted, difference=inquiry.first_difference(), notes=verdict.notes)
    assert verdict.claim is not None
    verdict = replace(verdict, claim=replace(verdict.claim, uncovered=inquiry.coverage.uncovered))
    found = inquiry.look_at_other_integers()
    if found is not None:
        refuted = _refuted(inquiry, "the outputs differ at other integers and booleans than the given ones", found)
        return replace(refuted, difference=inquiry.first_difference(), notes=verdict.notes)
    if verdict.kind is not Kind.ROUNDING:
        return verdict
    unlike = unrepeated(inquiry.obligation, both=True) or unlike_in_own_dtype(inquiry.obligation)
    if unlike is not None:
        return replace(verdict, kind=Kind.UNDECIDED, reason=f"{unlike}, though float64 evaluations agree")
    within = _proved_with_constants_alike(inquiry, verdict)
    if within is not None:
        return within
    unequal = {-1} | inquiry.exact.unequal
    if any(trial.hidden & unequal for trial in inquiry.search.agreeing):
        why = "rounding alone moves outputs by as much as their own size, so they show nothing"
        return replace(verdict, kind=Kind.UNDECIDED, reason=f"{_no_proof(inquiry)}, and {why}")
    if last.point.tosses or last.point.lucky:
        tossed = ", ".join({**last.point.tosses, **last.point.lucky})
        why = f"{verdict.reason}; {tossed} follows a number, which is random, and few of its outcomes were seen"
        return replace(verdict, kind=Kind.UNDECIDED, reason=why)
    return replace(verdict, difference=inquiry.first_difference())


def _proved_with_constants_alike(inquiry: Inquiry, rounding: Verdict) -> Verdict | None:
    """Return PROVED_WITHIN if the programs, which rounding alone drives apart, are equal but for rounded constants."""
    found = inquiry.with_constants_alike
    if found is None or found.point.constants is None:
        return None
    # Where the rounding of a constant is all of the difference, as floor(2.9999998) is from floor(3), it is no detail.
    # A continuous function that is sensitive at random inputs is another thing: rounding moves it as far. But a choice
    # by value is not known to be continuous, and outputs that rounding moves by their own size show nothing. At other
    # parameters, which may be far from any that a model has, they limit the claim to these. Elements that are 0 in
    # both programs, as the gradients of some biases are, differ by nothing but float64's own rounding.
    apart = [
        trial
        for i, trial in enumerate(inquiry.search.agreeing)
        if (i == 0 or may_jump(found.point) or trial.hidden) and not alike(trial)
    ]
    if apart:
        zeros = inquiry.zero_elements_of(found)
        apart = [trial for trial in apart if not _alike_but_for_zeros(inquiry.obligation, trial, zeros)]
    if not all(trial.elsewhere for trial in apart):
        return None
    elsewhere = rounding.claim is not None and rounding.claim.differs_elsewhere
    if elsewhere and found.variation.parameters:
        return None  # the constants explain the difference at other parameters no more than rounding does
    verdict = _proved(inquiry, found)
    if verdict.kind is not Kind.PROVED or verdict.claim is None:
        return None
    told_elsewhere = ("at other parameters the programs differ",) * elsewhere
    claim = verdict.claim.with_parameters_held() if apart else verdict.claim
    verdict = replace(
        verdict,
        claim=replace(claim, differs_elsewhere=elsewhere),
        notes=(*verdict.notes, *told_elsewhere),
    )
    steps = tuple(ApproximationStep(what, bound) for what, bound in told(found.point.constants.changes))
    reason = f"the same function over the real numbers, but for the rounding of constants ({len(steps)} named)"
    measured = None if apart else rounding.rounding  # that at other parameters is none of the claim
    return replace(verdict, kind=Kind.PROVED_WITHIN, reason=reason, steps=steps, rounding=measured)


def _alike_but_for_zeros(obligation: ProofObligation, trial: Trial, zeros: Mapping[int, Tensor]) -> bool:
    """Return True if outputs are alike but for elements that are 0 but for float64's own rounding."""
    point = trial.description, trial.leaves, trial.args, trial.kwargs
    return alike(evaluate(obligation, *point, perturbations=0, zeros=zeros))


def give_up(inquiry: Inquiry) -> Verdict:
    """Return UNDECIDED, with the reason for having no proof."""
    return _undecided(_no_proof(inquiry), inquiry.last)


STRATEGIES: tuple[Strategy, ...] = (
    prove_layers_once,
    prove_exactly,
    prove_within,
    prove_at_these_parameters,
    refute_by_structure,
    stop_where_rounding_is_not_known,
    refute_by_value,
    prove_pass_at_these_parameters,
    prove_by_value,
    explain_by_rounding,
)
"""In order; the last one always has a verdict."""

PROOFS: tuple[Strategy, ...] = (
    prove_layers_once,
    prove_exactly,
    prove_at_these_parameters,
    prove_by_value,
    give_up,
)
"""Those that prove equality over the real numbers, for programs of which no difference is worth a search."""


def before_rounding(find: Callable[[], Verdict | None]) -> tuple[Strategy, ...]:
    """Return `STRATEGIES`, and before the costly last one another that may find a proof."""
    return *STRATEGIES[:-1], lambda _: find(), STRATEGIES[-1]


# ------------------------------------------------------------------------------------------------ their parts


def _may_hold_parameters(inquiry: Inquiry) -> bool:
    obligation = inquiry.obligation
    return obligation.general and inquiry.exact.failure is None and bool(obligation.before.leaves)


def _proved_at_these_parameters(inquiry: Inquiry) -> Verdict | None:
    if not _may_hold_parameters(inquiry) or not inquiry.fixed.equal:
        return None
    return _proved(inquiry, inquiry.fixed)


def _proved(inquiry: Inquiry, found: Attempt, unrounded: Unrounded = ROUNDED) -> Verdict:
    """Return PROVED if the three checks agree with the residues."""
    obligation, point = inquiry.obligation, found.point
    if isinstance(found.result, Equal) and found.result.elements == 0:
        return Verdict(Kind.UNDECIDED, "all outputs are empty at these shapes, so nothing was compared")
    contradicting, apart, find_zeros = None, None, partial(inquiry.zeros_of, found)
    # They are large, and only runs at other integers take them again.
    copies = None if all(t.is_floating_point() for t in obligation.input_tensors) else SharedCopies()
    try:
        compared = replace(obligation, vanishing=found.vanishing)
        contradicting, apart = _find_contradiction(compared, unrounded, copies)
    except Undecided:  # an operator has no float64 form
        apart = _tell_values_apart(found)
    chosen = {**point.branch, **point.asked}
    choosing = ", ".join([*chosen, *point.escapes])
    if contradicting is not None and choosing and contradicting.calls > 1 and unrepeated(obligation) is None:
        # The second call has other inputs here, which take another branch: no rule need be wrong.
        return _refuted(inquiry, f"the outputs differ where {choosing} takes another branch than here", contradicting)
    if contradicting is not None:
        why = "residues agree but float64 evaluations do not"
        casts = found.runs.casts if found.runs is not None else ()
        told = (
            f"{why}: {casts[0]}"
            if casts
            else f"{why}, so a rule of foldproof contradicts the real operator; please report it"
        )
        return Verdict(
            Kind.UNDECIDED, unreal(obligation, found, find_zeros) or told, counterexample=_counterexample(contradicting)
        )
    doubt = unreal(obligation, found, find_zeros) or apart
    if doubt is not None:
        return Verdict(Kind.UNDECIDED, doubt)
    claim = found.claim(obligation)
    if chosen or point.escapes:
        elsewhere = inquiry.look_further(found, unrounded)
        if elsewhere is not None:
            return _refuted(inquiry, f"the outputs differ where {choosing} takes another branch than here", elsewhere)
        unseen = inquiry.coverage.uncovered
        unseen += inquiry.coverage.uncovered_by_parameters if claim.all_parameters else ()
        claim = replace(claim, uncovered=tuple(name for name in dict.fromkeys(unseen) if name in chosen))
    elsewhere = inquiry.look_at_other_integers(copies) if unrounded is ROUNDED else None
    if elsewhere is not None:
        return _refuted(inquiry, "the outputs differ at other integers and booleans than the given ones", elsewhere)
    proof = Proof(
        log2_error=inquiry.log2_error,
        degree=point.degree,
        bits=math.ceil(point.bits),
        evaluations=point.evaluations,
        primes=point.primes,
        attempts=inquiry.attempts,
        uninterpreted=tuple(point.uninterpreted),
        branching=tuple(point.branch),
        cuts=found.values_seen.made if isinstance(found.values_seen, Cuts) else 0,
        jumping=list_jumps(point),
    )
    lenient = point.semantics.algebraic or point.semantics.whole
    if lenient and (unlike := unlike_in_own_dtype(obligation)) is not None:
        return Verdict(Kind.UNDECIDED, f"{unlike}, though the programs are equal over the real numbers")
    notes = tuple(
        f"a value was read out of a tensor ({how}): the claim holds for inputs and parameters that give the same value"
        for how in point.escapes
    )
    if point.partial:
        notes = (*notes, AT_SINGLE_POINTS)
    if point.draws:
        notes = (*notes, DRAWN)
    return Verdict(Kind.PROVED, "the same function over the real numbers", claim, proof=proof, notes=notes)


def _find_contradiction(
    obligation: ProofObligation, unrounded: Unrounded, copies: SharedCopies | None
) -> tuple[Trial | None, str | None]:
    """Check a proof against the real operators, once, in float64: a wrong rule must not prove anything.

    Returns a counterexample, or a domain that differs, in words: a proof holds where both programs are defined, and one
    of them may be undefined at the very inputs that are given, as log(x)·(x > 0) is for x < 0.

    Raises:
        Undecided: an operator has no float64 form.
    """
    own = ("the given inputs and parameters", own_leaves(obligation), obligation.args, obligation.kwargs)
    check = evaluate(obligation, *own, perturbations=0, unrounded=unrounded, copies=copies)
    odd = check.comparison.unfinite
    if odd:
        return (
            None,
            f"at the given inputs, {odd} elements are infinite or not a number in one program only, even in float64",
        )
    if alike(check):
        return None, None
    check = evaluate(obligation, *own, unrounded=unrounded, copies=copies)
    return (check if check.differs and not doubted(obligation, check, unrounded) else None), None


def _tell_values_apart(found: Attempt) -> str | None:
    """Return the reason to doubt equal residues: the values beside them, in the programs' own dtypes, are far apart.

    For programs without a float64 form, it takes the place of `_find_contradiction`. Rounding rarely moves values by a
    good part of the largest one.
    """
    for i, (a, b) in enumerate(zip(*found.values)):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point() and a.shape == b.shape):
            continue
        x, y = a.detach().double(), b.detach().double()
        both = x.isfinite() & y.isfinite()
        apart, largest = ((t[both].abs().max() if bool(both.any()) else torch.zeros(())) for t in (x - y, x))
        if float(apart) > MAX_RELATIVE_SPREAD * float(largest):
            return f"residues agree but the values of output {i} in the programs' own dtypes do not"
    return None


def _refuted(inquiry: Inquiry, how: str, found: Trial) -> Verdict:
    return Verdict(
        Kind.REFUTED,
        f"a different function: {how}",
        claim=_claim_of_point(inquiry.obligation),
        counterexample=_counterexample(found),
        notes=(FROM_ONE_STATE,) if inquiry.exact.point.draws else (),
    )


def _claim_of_point(obligation: ProofObligation) -> Claim:
    return replace(vary(obligation, False).claim(Scope.POINT), shapes=obligation.shapes)


def _judge_floats(inquiry: Inquiry) -> Verdict:
    """Return ROUNDING if both programs ran on residues and in float64; there is neither proof nor counterexample."""
    obligation, search, exact, last = inquiry.obligation, inquiry.search, inquiry.exact, inquiry.last
    notes = [f"a value was read out of a tensor: {how}" for how in exact.point.escapes]
    no_proof = _no_proof(inquiry)
    if last.failure is not None or search.failure is not None or not any(t.elements for t in search.agreeing):
        failure = search.failure or "no output can be evaluated in float64"
        return replace(_undecided(last.failure or f"{no_proof}, and {failure}", last), notes=tuple(notes))
    worst = search.worst.comparison
    points = len(search.agreeing)
    sigma = worst.difference / worst.sigma if worst.sigma else 0.0
    claim = vary(obligation, any(t.elsewhere for t in search.agreeing)).claim(Scope.TRIED, points)
    found = Verdict(
        Kind.UNDECIDED,
        "",
        claim=replace(claim, shapes=obligation.shapes, differs_elsewhere=search.elsewhere is not None),
        rounding=Rounding(worst.difference, worst.sigma, points, sigma),
        notes=tuple(notes),
    )
    why = _why_floats_say_little(obligation, search, exact)
    if why is not None:
        return replace(found, reason=f"{no_proof}, and {why}")
    agree = "but float64 evaluations differ by no more than rounding explains"
    return replace(found, kind=Kind.ROUNDING, reason=f"{no_proof}, {agree}{_tell_constants(last)}")


def _no_proof(inquiry: Inquiry) -> str:
    exact = inquiry.exact
    return f"no algebraic proof ({exact.mismatch.what if exact.mismatch else exact.failure})"


def _why_floats_say_little(obligation: ProofObligation, search: Search, exact: Attempt) -> str | None:
    """Return the reason why agreeing floats are no evidence; None if they are evidence."""
    written = exact.mismatch.written if exact.mismatch else None
    if written is not None and any(written not in t.written for t in search.agreeing):
        return f"float64 evaluations do not cover the values written to {written}"
    if exact.mismatch and exact.mismatch.later and any(t.calls == 1 for t in search.agreeing):
        return "float64 evaluations do not cover what a call leaves to the next one"
    if ignore_inputs(obligation, search.agreeing):
        return "the outputs hardly depend on the inputs, so agreement is weak evidence; give inputs that matter"
    if any(t.comparison.unfinite for t in search.agreeing):
        where = "where the other (or itself, rounded) is finite"
        return f"no counterexample: one program overflows, or is not a number, {where}"
    if search.worst.comparison.ratio > MAX_EXPLAINED_RATIO:
        return "no counterexample: the difference is more than rounding explains, but too small to call wrong"
    return None


def _undecided(reason: str, found: Attempt) -> Verdict:
    where = found.result.node if isinstance(found.result, Failed) else None
    difference = Difference(where.name, operator_name(where), source_of(where)) if where is not None else None
    return Verdict(Kind.UNDECIDED, reason, difference=difference)


def _tell_constants(found: Attempt) -> str:
    """List the numbers that only one program computes with: the usual reason for a missing proof."""
    only = zip(own_numbers(found), ("the first", "the second"))
    told = [f"{', '.join(map(repr, sorted(n)[:4]))} in {which} only" for n, which in only if n]
    return f"; constants: {'; '.join(told)}" if told else ""


def _counterexample(trial: Trial) -> Counterexample:
    c = trial.comparison
    return Counterexample(
        trial.description if trial.shapes is None else f"{trial.description}: {trial.shapes}",
        c.output,
        c.index,
        c.before,
        c.after,
        c.difference,
        c.sigma,
        inputs=tuple(tree_leaves((trial.args, dict(trial.kwargs)))),
        parameters=dict(trial.leaves),
        name=trial.names[c.output] if c.output < len(trial.names) else "",
    )
