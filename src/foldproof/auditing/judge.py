"""From a change of a graph to a verdict: the changed region first, then the whole graph."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from foldproof.auditing.changed_region import changed_region
from foldproof.auditing.inputs import inputs_for
from foldproof.auditing.log import Change
from foldproof.auditing.new_constants import Again, Derive, new_constants, recomputed, repeats, unfolded
from foldproof.auditing.quantization import unquantized
from foldproof.auditing.snapshot import Snapshot, updates_statistics
from foldproof.claim import IDENTITY
from foldproof.errors import FoldproofError, brief
from foldproof.log import log_caught
from foldproof.program.state import owned
from foldproof.proof import prove, prove_pass
from foldproof.proof.shapes import sampled_inputs
from foldproof.shadow import Undecided
from foldproof.thresholds import MAX_RERUN_SECONDS
from foldproof.torch_internals import HigherOrderOperator
from foldproof.verdict import Kind, Verdict

UNCHANGED = Verdict(Kind.PROVED, "the graph is unchanged", claim=IDENTITY)
SAME = Verdict(
    Kind.PROVED,
    "the same operators on the same operands: only their order, their names, or nodes that nobody reads differ",
    claim=IDENTITY,
)


STRANGE = "the given inputs do not fit this graph: it was tried on random ones, of the shapes that it was traced with"


def judge(change: Change, given: Sequence[Any]) -> Verdict:
    """Whether the graphs before and after are the same function. ``given`` are the inputs of the whole model.

    A pass that computes new weights is run again on shadows where that can be done; constants that the graph before
    computes keep their origin; other new constants are numbers, for which there is ROUNDING at best.
    """
    start = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what a pass warns of, it warned of when it ran
        try:
            verdict = _judge(change, given)
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
        return Verdict(Kind.UNDECIDED, f"inputs or outputs are put together differently: {told}")
    if list(map(id, before.hung)) != list(map(id, after.hung)):
        why = "the pass changes hooks of the module, or a forward of its own, and graphs alone are compared"
        return Verdict(Kind.UNDECIDED, why)
    if _same(before, after):
        return SAME
    for node in (*before.graph.nodes, *after.graph.nodes):
        if isinstance(node.target, HigherOrderOperator):
            return Verdict(Kind.UNDECIDED, f"no rule for the higher-order operator {node.target}")
        if updates_statistics(node):
            return Verdict(Kind.UNDECIDED, f"{node.name} is a normalization in training: it updates statistics unseen")
    known = given if change.inputs is None else change.inputs
    inputs = inputs_for(before, known)
    if inputs is None:
        wanted = len(before.placeholders)
        return Verdict(
            Kind.UNDECIDED, f"the {len(known)} inputs that are known do not fit the graph, which takes {wanted}"
        )
    within = _apart_from_quantization(change, before, after, inputs)
    verdict = _of_unfolded(change, before, after, inputs) if within is None else within
    if known and inputs and inputs[0] is not known[0]:
        verdict = replace(verdict, notes=(*verdict.notes, STRANGE))
    return verdict


def _same(before: Snapshot, after: Snapshot) -> bool:
    return before.functional and after.functional and before.effect == after.effect


def _apart_from_quantization(
    change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]
) -> Verdict | None:
    """PROVED_WITHIN, if the graphs are the same but for values that *after* rounds to integers and back.

    None where *after* introduces no quantization, or a fake one. Where it does, a difference is one that is there
    without it, too. Quantizations that are changed or dropped are steps as well.
    """
    first, old, fakes = unquantized(before)
    second, steps, kept = unquantized(after)
    new = tuple(step for made, step in steps.items() if made not in old)
    known, left = ([made for _, *made in which] for which in (fakes, kept))  # passes that retrace rename
    if not new or any(made not in known for made in left):
        return None
    dropped = [s for made, s in old.items() if made not in steps]
    dropped += [s for (_, *made), s in fakes.items() if made not in left]
    new += tuple(replace(s, name=f"{s.name} (before)") for s in dropped)
    verdict = SAME if _same(first, second) else _of_unfolded(change, first, second, inputs)
    if verdict.kind is not Kind.PROVED:
        return replace(verdict, notes=(*verdict.notes, "of the graphs without quantization"))
    return replace(
        verdict, kind=Kind.PROVED_WITHIN, reason="the same function up to the quantization of named values", steps=new
    )


def _of_unfolded(change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> Verdict:
    """As `_of_graphs`; where constants may be what they are by chance, other parameters are not spoken of."""
    read, surely = unfolded(before, after, _again(change))
    verdict = _of_graphs(change, before, read, inputs)
    if surely or verdict.kind is not Kind.PROVED or verdict.claim is None:
        return verdict
    names = tuple(dict.fromkeys(name for name, _ in owned(before.module)))
    claim = replace(verdict.claim, parameters=names)  # a claim of identity names none
    return replace(verdict, claim=claim.with_parameters_held())


def _again(change: Change) -> Again | None:
    """The pass and what it is run on again, if it can be, and soon: a proof takes a dozen runs."""
    if (
        change.rerun is None
        or change.seconds > MAX_RERUN_SECONDS
        or (change.rerun.program is None and change.before.writes_back)
    ):
        return None
    return change.rerun.run, change.rerun.program or change.before.module


def _of_graphs(change: Change, before: Snapshot, after: Snapshot, inputs: Sequence[Any]) -> Verdict:
    if _same(before, after):
        return SAME
    new = new_constants(before.module, after.module, twins=True)
    wanted = {n: t for n, t in new.items() if t.dtype.is_floating_point}
    again = _again(change)
    derive = recomputed(*again, wanted) if wanted and again is not None else None
    one_size = len(sampled_inputs(before.module, inputs, {})) == 1  # else each region would need its own sizes
    region = changed_region(before, after, inputs) if one_size else None
    # A pass that is right by chance, for these parameters, shows it when it is run again.
    may_be_chance = again is not None and before is change.before
    if region is not None:
        verdict = _attempt(region.before, region.after, region.inputs, derive)
        if verdict.kind is Kind.PROVED and not (may_be_chance and _holds_here(verdict)):
            nodes = sum(n.op.startswith("call_") for n in region.before.graph.nodes)
            return replace(verdict, notes=(*verdict.notes, f"proved on the changed region of {nodes} operators"))
    if derive is not None:
        verdict = _run_again(change, inputs)
        if verdict.kind is Kind.UNDECIDED:
            verdict = _attempt(before.module, after.module, inputs, derive)
        if verdict.kind is not Kind.UNDECIDED:
            return verdict
    verdict = prove(before.module, after.module, inputs, by_value=True)  # new parameters are constants
    if derive is None and may_be_chance and verdict.kind is Kind.PROVED and _holds_here(verdict):
        found = _run_again(change, inputs)
        verdict = verdict if found.kind is Kind.UNDECIDED else found
    return verdict


def _holds_here(verdict: Verdict) -> bool:
    """Whether the verdict is for these parameter values only."""
    return verdict.claim is not None and not verdict.claim.all_parameters


def _run_again(change: Change, inputs: Sequence[Any]) -> Verdict:
    """What `prove_pass` says of the pass, if it does again what it did."""
    again = _again(change)
    if again is None or not repeats(*again, change.after):
        return Verdict(Kind.UNDECIDED, "the pass can't be run again")
    try:
        return prove_pass(*again, inputs)
    except Exception as error:
        log_caught(error, "running a pass again")
        return Verdict(Kind.UNDECIDED, _why(error))


def _attempt(before: Any, after: Any, inputs: Sequence[Any], derive: Derive | None) -> Verdict:
    try:
        # Compilers write activations as choices between their pieces.
        return prove(before, after, inputs, derive=derive, by_value=True)
    except Exception as error:  # the whole graph is tried next
        log_caught(error, "proving a changed region")
        return Verdict(Kind.UNDECIDED, _why(error))


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, Undecided) else brief(error)
