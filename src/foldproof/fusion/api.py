"""The public functions `fuse` and `explain`."""

from __future__ import annotations

import operator
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from foldproof.errors import FoldproofError, brief
from foldproof.formatting import format_count
from foldproof.fusion.accuracy import measure
from foldproof.fusion.affines import (
    SOURCES,
    batch_norm_deviation,
    batch_norm_scale,
    drops_at_random,
    is_in_training,
    is_normalisation,
    read_affine,
)
from foldproof.fusion.batching import BITWISE
from foldproof.fusion.dead_channels import DeadChannels
from foldproof.fusion.result import FuseResult, Rewrite
from foldproof.fusion.rewriter import COMPUTED, Account, Progress, Rewriter
from foldproof.fusion.weightless import WITHOUT_WEIGHTS, Weightless
from foldproof.graph.text import operator_name
from foldproof.graph.view import view_graph
from foldproof.program import Values, as_program
from foldproof.program.export import export_module
from foldproof.proof import prove as prove_programs
from foldproof.proof import prove_region
from foldproof.proof.shapes import as_inputs
from foldproof.rewriting.account import UNCHANGED, UNPROVED, Declined
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.expression import Expression
from foldproof.rewriting.refusal import CannotFold
from foldproof.thresholds import ACCURACY_LIMIT
from foldproof.torch_internals import is_traceable_wrapper_subclass, storage_id
from foldproof.verdict import Kind, Verdict


def fuse(
    model_or_program: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    passes: Sequence[str] | None = None,
    accuracy_limit: float = ACCURACY_LIMIT,
    prove: bool = True,
    progress: Progress | None = None,
) -> FuseResult:
    """Fold each scale and shift of channels into the linear operators around it, and prove each fold.

    Args:
        model_or_program: a module, which is exported as it is (call ``.eval()`` first), or a program of
            ``torch.export.export``, before or after ``run_decompositions``. It is not changed; the result shares the
            weights that stay. Parameters may have no values, on the meta device; those of the result have none, then.
        inputs: example inputs, positional; the shapes at which the proof is made.
        kwargs: example inputs, by keyword.
        dynamic_shapes: as for ``torch.export.export``; for a module only.
        passes: the rules to apply, out of `PASSES`; by default `DEFAULT`, without the rules that pay only before
            quantization or on certain machines (the batching of parallel linears), or hold for these weights alone
            (``"dead_channels"``).
        accuracy_limit: the largest factor by which a fold may increase the distance of a region's result from the
            float64 result, on the example inputs; other folds are declined.
        prove: False skips the proofs of each fold and of the whole; the verdicts are then UNDECIDED.
        progress: called as ``progress(done, total, what comes next)``.

    Returns:
        The folded program, the rewrites, the declined operators with reasons, and verdicts. New weights are computed in
        float64 and rounded once to the dtype of the weights that they replace.

    Raises:
        FoldproofError: the model can't be exported with these inputs, is in training mode and normalises by the
            statistics of each batch, or an argument is of the wrong kind; also what `foldproof.prove` raises.

    Warns:
        UserWarning: a normalisation follows a linear operator whose channels are on another axis.
    """
    if not accuracy_limit > 0:
        raise FoldproofError(f"accuracy_limit is {accuracy_limit}, but must be a number above 0; the default is 16")
    started = time.perf_counter()
    inputs, kwargs = as_inputs(inputs), dict(kwargs or {})
    frozen: list[str] = []
    before = _export(model_or_program, inputs, kwargs, dynamic_shapes, frozen)
    progress = progress or (lambda done, total, what: None)
    rewriter = Rewriter.of(passes, prove_region if prove else None)
    refused: dict[str, str] = {}
    weightless = Weightless.of(before)
    if weightless is not None:
        before = weightless.program
        inputs, kwargs = Values().inputs((inputs, kwargs))
    while True:
        editor = GraphEditor.on_copy(before)
        _require_evaluation(model_or_program, editor)
        editor.constants.valueless = frozenset() if weightless is None else weightless.names
        account = rewriter.run(editor, progress, refused)
        # Random weights show no loss of digits.
        rewrites = tuple(account.rewrites) if weightless else measure_rewrites(account, before, tuple(inputs), kwargs)
        worse = {r.reported: why for r in rewrites if (why := _loses_digits(r, accuracy_limit) or _changes_bits(r))}
        if not worse:
            break
        refused |= worse
    for text in dict.fromkeys(account.warnings):
        warnings.warn(text, stacklevel=2)
    after = editor.finish()
    if not rewrites and not editor.host.simplified:
        verdict = UNCHANGED
    elif prove and (made := _find_made_of_others(before)) is not None:
        verdict = Verdict(Kind.UNDECIDED, f"each rewrite is proved by itself, but not the whole program: {made}")
    elif prove:
        conditional = [rewrite for rewrite in rewrites if rewrite.conditional]
        verdict = prove_programs(before, after, inputs, kwargs, derive=editor.derive, by_value=bool(conditional))
        if conditional and verdict.proof is not None and verdict.claim is not None:
            claim = verdict.claim.with_parameters_held()
            if any(rewrite.rule.split()[0] != DeadChannels.id for rewrite in conditional):
                # A scale that moved past a maximum is right for these signs only, even if the residues agree here.
                claim = replace(claim, choices=claim.choices or ("a maximum",))
            verdict = replace(verdict, claim=claim)
    else:
        verdict = UNPROVED
    dropouts = _tell_dropouts(editor)
    if dropouts is not None:
        verdict = replace(verdict, notes=(*verdict.notes, dropouts))
    if frozen:
        told = f"a call of the module sets {', '.join(frozen)}, which the exported program keeps as it was"
        verdict = replace(verdict, notes=(*verdict.notes, told))
    if weightless is not None:
        after, before = weightless.restored(after), weightless.given
        verdict = replace(verdict, notes=(*verdict.notes, WITHOUT_WEIGHTS))
    return FuseResult(
        program=after,
        rewrites=rewrites,
        declined=tuple(account.declined),
        verdict=verdict,
        operators_before=_count_operators(before),
        operators_after=_count_operators(after),
        bytes_before=_count_bytes(before),
        bytes_after=_count_bytes(after),
        seconds=time.perf_counter() - started,
        original=view_graph(before),
    )


def explain(
    model_or_program: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    progress: Progress | None = None,
) -> tuple[Declined, ...]:
    """List the normalisations that `fuse` leaves standing, each with the reason and a hint.

    Args:
        model_or_program: as in `fuse`; it is not changed.
        inputs: example inputs, positional.
        kwargs: example inputs, by keyword.
        dynamic_shapes: as for ``torch.export.export``; for a module only.
        progress: called as ``progress(done, total, what comes next)``.

    Raises:
        FoldproofError: as in `fuse`.
    """
    before = _export(model_or_program, as_inputs(inputs), dict(kwargs or {}), dynamic_shapes)
    nothing = (lambda done, total, what: None) if progress is None else progress
    weightless = Weightless.of(before)
    editor = GraphEditor.on_copy(before if weightless is None else weightless.program)
    editor.constants.valueless = frozenset() if weightless is None else weightless.names
    return tuple(Rewriter.of(None, prove_region).run(editor, nothing, {}).declined)


NORMALISATIONS = tuple(source.id for source in SOURCES if source.is_normalisation)
"""The folds that most tools know."""


def fold_unproved(
    program: nn.Module | ExportedProgram, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[Expression, ...]:
    """Return the constants that folds of a program compute, over its parameters by name; nothing is proved.

    These are the constants of `fuse`, those that it makes of normalisations alone and of repeated computations alone,
    and the scale, shift and standard deviation of each normalisation.

    Raises:
        FoldproofError: as in `fuse`.
    """
    exported = _export(program, as_inputs(inputs), dict(kwargs or {}), None)
    found = list(_statistics(GraphEditor.on_copy(exported)))
    for passes in (NORMALISATIONS, (COMPUTED,), None):  # other tools leave other affines, and fold less into tables
        editor = GraphEditor.on_copy(exported)
        Rewriter.of(passes, None).run(editor, lambda done, total, what: None, {})
        found += editor.constants.derived.values()
    return tuple(found)


def _statistics(editor: GraphEditor) -> Iterator[Expression]:
    for node in editor.graph.nodes:
        if is_normalisation(node, editor.constants):
            with suppress(CannotFold):
                affine = read_affine(node, editor.constants).affine
                yield from (x for x in (affine.scale, affine.shift) if isinstance(x, Expression))
                if isinstance(affine.scale, Expression) and affine.scale.function is batch_norm_scale:
                    yield Expression(batch_norm_deviation, affine.scale.operands[1:])


def measure_rewrites(
    account: Account, before: GraphModule | ExportedProgram, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Rewrite, ...]:
    """Return the rewrites with their accuracies, as far as they can be measured."""
    if not account.measured:
        return tuple(account.rewrites)
    found = measure(as_program(before), inputs, kwargs, account.measured)
    return tuple(replace(rewrite, accuracy=one) for rewrite, one in zip(account.rewrites, found, strict=True))


def _find_made_of_others(program: GraphModule | ExportedProgram) -> str | None:
    """Return the reason why a program with weights of torchao's classes can't be proved; None for any other."""
    for name, leaf in as_program(program).leaves.items():
        if is_traceable_wrapper_subclass(leaf.tensor):
            return f"{name} is of type {type(leaf.tensor).__name__}, which is made of other tensors"
    return None


def _loses_digits(rewrite: Rewrite, limit: float) -> str | None:
    one = rewrite.accuracy
    if one is None or one.ratio <= limit:
        return None
    return (
        f"it is right, but loses digits: folded, the result is {one.ratio:.3g} times as far from the float64 result"
        f" ({one.after:.2g} of its size) on these inputs, and the limit is {limit:g}"
    )


def _changes_bits(rewrite: Rewrite) -> str | None:
    if rewrite.accuracy is None or rewrite.accuracy.identical or not rewrite.rule.startswith(BITWISE.id):
        return None
    return "as one operator, it rounds some results differently here, on these inputs"


def _require_evaluation(given: object, editor: GraphEditor) -> None:
    """Refuse a model in training mode, as `torch.nn.utils.fuse_conv_bn_eval` does.

    A module that is in evaluation and asks for the statistics of a batch wants them. A graph, which has no mode of its
    own, is in evaluation if one of its normalisations is.

    Raises:
        FoldproofError: normalisations with running statistics take those of the batch.
    """
    constants, nodes = editor.constants, list(_nodes_with_subgraphs(editor))
    found = [n for n in nodes if is_normalisation(n, constants) and not constants.holds(n)]
    count = sum(is_in_training(node, constants) for node in found)
    if isinstance(given, nn.Module) and not isinstance(given, GraphModule):
        evaluates = not any(part.training for part in given.modules())
    else:
        evaluates = count < len(found)
    if count and not evaluates:
        raise FoldproofError(
            f"the model is in training mode: {format_count(count, 'normalisation')} would take the statistics of each"
            " batch, so nothing is folded; call model.eval() before it is fused or exported"
        )


def _nodes_with_subgraphs(editor: GraphEditor) -> Iterator[Node]:
    yield from editor.graph.nodes
    for name, part in editor.host.subgraphs.named_modules():
        if name and isinstance(part, GraphModule):
            yield from part.graph.nodes


def _tell_dropouts(editor: GraphEditor) -> str | None:
    """Return a remark about elements that the program drops at random; None if it drops none."""
    count = sum(drops_at_random(node) for node in _nodes_with_subgraphs(editor))
    if not count:
        return None
    drop = "drops" if count == 1 else "drop"
    return f"{format_count(count, 'dropout')} {drop} elements at random, as in training; model.eval() switches that off"


def _export(
    program: nn.Module | ExportedProgram,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
    frozen: list[str] | None = None,
) -> GraphModule | ExportedProgram:
    if isinstance(program, ExportedProgram):
        if dynamic_shapes is not None:
            raise FoldproofError("dynamic_shapes is for modules: an exported program has its dynamic shapes already")
        return program
    if isinstance(program, GraphModule):
        if not any(isinstance(n.meta.get("val"), Tensor) for n in program.graph.nodes):
            raise FoldproofError(
                "the GraphModule has no shapes: make it by torch.export.export(model, inputs).module()"
            )
        return program
    if not isinstance(program, nn.Module):
        raise FoldproofError(f"can't fuse {type(program).__name__}: give an nn.Module or a torch.export program")
    try:
        return export_module(program, inputs, kwargs, dynamic_shapes, frozen)
    except Exception as error:
        raise FoldproofError(f"{type(program).__name__} can't be exported with these inputs: {brief(error)}") from error


def _count_operators(program: GraphModule | ExportedProgram) -> Counter[str]:
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return Counter(operator_name(node) for node in calls if node.target is not operator.getitem)


def _count_bytes(program: GraphModule | ExportedProgram) -> int:
    constants = program.constants.values() if isinstance(program, ExportedProgram) else program.buffers()
    state = program.state_dict(keep_vars=True) if isinstance(program, GraphModule) else program.state_dict
    held = [t for t in (*state.values(), *constants) if isinstance(t, Tensor)]
    memory = {storage_id(t): t.untyped_storage().nbytes() for t in held}
    return sum(memory.values())
