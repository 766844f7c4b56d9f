"""Verdicts on changes of a graph: a proof of the changed region first, then of the whole graph.

Both graphs are read into `Snapshot` form first. Then, in order:

1. Graphs that compute the same expressions are PROVED without further work.
2. Quantizations that the pass introduced are taken out of both graphs. The rest is proved; the quantizations are named
   in the verdict as steps with a bound.
3. New constants are traced back to parameters, as computations of the graph before, or by running the pass again. A
   proof then holds for all parameters. Constants without an origin are numbers, so other parameters are not covered.
4. The changed region is proved. If that fails, or the region is equal at the present parameters only, the pass is run
   again on shadow parameters, and the whole graphs are compared.
5. Where rounding alone is left, new constants are compared with the folds that `foldproof.fuse` knows.

Only equality is taken from a region. A difference is always decided on the whole graphs, because the inputs of a region
may depend on each other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from foldproof.auditing.changed_region import cut_changed_region
from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change
from foldproof.auditing.new_constants import (
    Again,
    Derive,
    find_new_constants,
    is_repeatable,
    make_derive,
    unfold_constants,
)
from foldproof.auditing.quantization import Measured, measure_quantization, remove_quantization
from foldproof.auditing.snapshot import Snapshot, updates_statistics
from foldproof.claim import IDENTITY
from foldproof.errors import FoldproofError, brief
from foldproof.formatting import format_percent
from foldproof.fusion.known import prove_known_folds
from foldproof.graph.interpreter import CONTROL_FLOW
from foldproof.log import log_caught
from foldproof.program.state import owned
from foldproof.proof import prove, prove_pass
from foldproof.proof.decide import PROOFS, Strategy
from foldproof.proof.shapes import sampled_inputs
from foldproof.shadow import Undecided
from foldproof.thresholds import MAX_RERUN_SECONDS
from foldproof.torch_internals import HigherOrderOperator
from foldproof.verdict import Kind, Verdict

UNCHANGED = Verdict(Kind.PROVED, "the graph is unchanged", claim=IDENTITY)
SAME = Verdict(
    Kind.PROVED,
    "the same operators on the same operands: only order, names or unused nodes differ",
    claim=IDENTITY,
)


RANDOM_INPUTS = "the given inputs do not fit this graph: random inputs of its traced shapes were used"


def judge(change: Change, given: Sequence[Any]) -> Verdict:
    """Decide if the graphs before and after a change are the same function; ``given`` are the inputs of the model.

    A pass that computes new weights is run again on shadows if possible. Constants that the graph before computes keep
    their origin. Other new constants are numbers, for which the best verdict is ROUNDING.
    """
    start = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the compiler's own run has shown the warnings of passes
        try:
            verdict = _judge(change, given)
            if change.differentiate is not None and verdict.ok and verdict not in (SAME, UNCHANGED):
                verdict = _judge_gradients(verdict, change.differentiate(change), given)
        except (FoldproofError, Undecided) as error:
            log_caught(error, f"judging {change.name}")
            verdict = Verdict(Kind.UNDECIDED, str(error))
        except Exception as error:
            log_caught(error, f"judging {change.name}")
            verdict = Verdict(Kind.UNDECIDED, f"the step can't be evaluated: {brief(error)}")
    return replace(verdict, seconds=time.perf_counter() - start)


def _judge(change: Change, given: Sequence[Any]) -> Verdict:
    before, after = change.before, change.after
    if change.unseen:
        return Verdict(Kind.UNDECIDED, f"the graph can't be seen: {change.unseen}")
    if not change.fired:
        return UNCHANGED
    if before.structure and after.structure and before.structure != after.structure:
        told = f"{before.structure} before, {after.structure} after"
        return Verdict(Kind.UNDECIDED, f"inputs or outputs have a different structure: {told}")
    if list(map(id, before.hung)) != list(map(id, after.hung)):
        why = "the pass changes hooks, the class or the forward method of the module, and only graphs are compared"
        return Verdict(Kind.UNDECIDED, why)
    if _are_same(before, after):
        return SAME
    for node in (*before.graph.nodes, *after.graph.nodes):
        if isinstance(node.target, HigherOrderOperator) and node.target not in CONTROL_FLOW:
            return Verdict(Kind.UNDECIDED, f"no rule for the higher-order operator {node.target}")
        if updates_statistics(node):
            why = f"{node.name} is a normalization in training: it updates statistics until eval() is called"
            return Verdict(Kind.UNDECIDED, why)
    known = given if change.inputs is None else change.inputs
    inputs = find_inputs(before, known)
    if inputs is None:
        wanted = len(before.placeholders)
        return Verdict(Kind.UNDECIDED, f"the {len(known)} known inputs do not fit the graph, which takes {wanted}")
    within = _judge_without_quantization(change, before, after, inputs)
    verdict = _judge_unfolded(change, before, after, inputs) if within is None else within
    if known and inputs and inputs[0] is not known[0]:
        verdict = replace(verdict, notes=(*verdict.notes, RANDOM_INPUTS))
    return verdict


def _judge_gradients(verdict: Verdict, change: Change, given: Sequence[Any]) -> Verdict:
    """Return the ``verdict`` on graphs if their gradients are the same, too; else that on these."""
    found = _judge(change, given)
    return replace(verdict, notes=(*verdict.notes, "so are their gradients")) if found.ok else found


def _are_same(before: Snapshot, after: Snapshot) -> bool:
    return before.functional and after.functional and before.effect == after.effect


def _judge_without_quantization(
    change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]
) -> Verdict | None:
    """Return PROVED_WITHIN if the graphs are equal but for values that *after* rounds to integers and back.

    None if *after* introduces no quantization, or a fake one. Any other verdict is that of the graphs without
    quantization. Changed and dropped quantizations are steps, too.
    """
    first, old, fakes = remove_quantization(before)
    _, found, kept = remove_quantization(after)
    known, left = ([made for _, *made in which] for which in (fakes, kept))  # retracing changes the names
    if old.keys() >= found.keys() or any(made not in known for made in left):
        return None
    measured = measure_quantization(after, inputs)  # several runs
    second, steps, _ = remove_quantization(after, measured.changes if measured is not None else None)
    new = tuple(step for made, step in steps.items() if made not in old)
    dropped = [s for made, s in old.items() if made not in steps]
    dropped += [s for (_, *made), s in fakes.items() if made not in left]
    new += tuple(replace(s, name=f"{s.name} (before)") for s in dropped)
    verdict = SAME if _are_same(first, second) else _judge_unfolded(change, first, second, inputs)
    if verdict.kind is not Kind.PROVED:
        return replace(verdict, notes=(*verdict.notes, "of the graphs without quantization"))
    claim, changes = verdict.claim, measured.changes.values() if measured is not None else ()
    if claim is not None and any(step.bound in changes for step in new):  # what was cut off on the inputs tried
        claim = replace(claim, local_bounds=True)
    return replace(
        verdict,
        kind=Kind.PROVED_WITHIN,
        reason="the same function up to the quantization of named values",
        steps=new,
        claim=claim,
        notes=(*verdict.notes, _tell_end_to_end(measure_quantization(before, inputs), measured)),
    )


def _tell_end_to_end(before: Measured | None, after: Measured | None) -> str:
    """Describe the difference of the outputs at the given inputs."""
    if before is None or after is None or len(before.outputs) != len(after.outputs):
        return "the graphs could not be run by themselves, so neither ranges nor outputs were measured"
    pairs = [(a.double(), b.double()) for a, b in zip(before.outputs, after.outputs) if a.is_floating_point()]
    worst = max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
    size = sum(float(a.square().sum()) for a, _ in pairs) ** 0.5
    far = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    share = f", {format_percent(far / size)} of their size" if size else ""
    return f"on the given inputs the outputs differ by up to {worst:.3g}{share} (root mean squares)"


def _judge_unfolded(change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> Verdict:
    """Judge as `_judge_graphs`; if constants may be equal by chance, claim nothing for other parameters."""
    read = unfold_constants(before, after, _find_rerun(change))
    verdict = _judge_graphs(change, before, read.after, inputs)
    if read.steps and verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN):
        # Few roundings of a constant are many of what is divided by its small elements.
        held = _judge_graphs(change, before, after, inputs)
        if held.kind in (Kind.REFUTED, Kind.UNDECIDED):
            return held
        steps = (*verdict.steps, *read.steps)
        reason = f"the same function over the real numbers, but for the rounding of constants ({len(steps)} named)"
        verdict = replace(verdict, kind=Kind.PROVED_WITHIN, reason=reason, steps=steps)
    if read.surely or verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN) or verdict.claim is None:
        return verdict
    names = tuple(dict.fromkeys(name for name, _ in owned(before.module)))
    claim = replace(verdict.claim, parameters=names)  # a claim of identity names none
    return replace(verdict, claim=claim.with_parameters_held())


def _find_rerun(change: Change) -> Again | None:
    """Return the pass and the program to run it on again; None if it can't be, or is slow: a proof runs it often."""
    if (
        change.rerun is None
        or change.seconds > MAX_RERUN_SECONDS
        or (change.rerun.program is None and change.before.writes_back)
    ):
        return None
    return change.rerun.run, change.rerun.program or change.before.module


def _judge_graphs(change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> Verdict:
    if _are_same(before, after):
        return SAME
    new = find_new_constants(before.module, after.module, twins=True)
    wanted = {n: t for n, t in new.items() if t.dtype.is_floating_point}
    again = _find_rerun(change)
    derive = make_derive(*again, wanted) if wanted and again is not None else None
    one_size = len(sampled_inputs(before.module, inputs, {})) == 1  # otherwise each region would need its own sizes
    region = cut_changed_region(before, after, inputs) if one_size else None
    # A pass may be right by chance, for these parameters only; running it again on others shows that.
    may_be_chance = again is not None and before is change.before
    if region is not None:
        # A difference of regions refutes nothing, so none is looked for.
        verdict = _attempt(region.before, region.after, region.inputs, derive, PROOFS)
        if verdict.kind is Kind.PROVED and not (may_be_chance and _holds_here(verdict)):
            nodes = sum(n.op.startswith("call_") for n in region.before.graph.nodes)
            return replace(verdict, notes=(*verdict.notes, f"proved on the changed region of {nodes} operators"))
    if derive is not None:
        verdict = _run_again(change, inputs)
        if verdict.kind is Kind.UNDECIDED:
            verdict = _attempt(before.module, after.module, inputs, derive)
        if verdict.kind is not Kind.UNDECIDED:
            return verdict

    def proved(how: Derive | None, strategies: Sequence[Strategy] | None = None) -> Verdict:
        return prove(before.module, after.module, inputs, derive=how, by_value=True, strategies=strategies)

    if wanted and derive is None:
        return prove_known_folds(before.module, after.module, inputs, None, proved)
    verdict = proved(None)
    if derive is None and may_be_chance and verdict.kind is Kind.PROVED and _holds_here(verdict):
        found = _run_again(change, inputs)
        verdict = verdict if found.kind is Kind.UNDECIDED else found
    return verdict


def _holds_here(verdict: Verdict) -> bool:
    """True if the verdict holds for these parameter values only."""
    return verdict.claim is not None and not verdict.claim.all_parameters


def _run_again(change: Change, inputs: Sequence[Any]) -> Verdict:
    """Return the verdict of `prove_pass` on the pass; UNDECIDED if the pass does not repeat its result."""
    again = _find_rerun(change)
    if again is None or not is_repeatable(*again, change.after):
        return Verdict(Kind.UNDECIDED, "the pass can't be run again")
    try:
        return prove_pass(*again, inputs)
    except Exception as error:
        log_caught(error, "running a pass again")
        return Verdict(Kind.UNDECIDED, _explain(error))


def _attempt(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    derive: Derive | None,
    strategies: Sequence[Strategy] | None = None,
) -> Verdict:
    try:
        # Compilers write activations as choices between pieces, so branches have to follow the values.
        return prove(before, after, inputs, derive=derive, by_value=True, strategies=strategies)
    except Exception as error:  # the whole graph is tried next
        log_caught(error, "proving a changed region")
        return Verdict(Kind.UNDECIDED, _explain(error))


def _explain(error: Exception) -> str:
    return str(error) if isinstance(error, Undecided) else brief(error)
