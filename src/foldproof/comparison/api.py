"""`compare`: a program against numbers."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from foldproof.claim import Claim, Held, Role, Scope, Why
from foldproof.comparison.arguments import tell_arguments
from foldproof.comparison.attribution import Findings, find_sources, largest_source, short
from foldproof.comparison.calls import Call, Run, Side, name_values, state_of_generators
from foldproof.comparison.candidate import Candidate, caller, candidate_of, is_saved
from foldproof.comparison.distance import truth_distance
from foldproof.comparison.far import find_far, judge_far, prove_both, tell_far
from foldproof.comparison.graph import Graph
from foldproof.comparison.inputs import Inputs, can_redraw, count_trials, redrawn
from foldproof.comparison.judge import (
    Judged,
    Outputs,
    distance,
    flips,
    identical,
    judge,
    judge_alike,
    number,
    rms,
    tell_absurd,
)
from foldproof.comparison.layers import layers
from foldproof.comparison.order import match_by_order, tell_other_inputs, tell_other_order
from foldproof.comparison.own import find_own_graph, own_at
from foldproof.comparison.precision import PRECISIONS, explain, precision_of
from foldproof.comparison.reproduction import reproduce
from foldproof.comparison.result import (
    CompareResult,
    InputDistance,
    Layer,
    NoiseFloor,
    OutputDistance,
    TruthDistance,
)
from foldproof.comparison.saved import judge_saved
from foldproof.comparison.selection import selection
from foldproof.comparison.state import separate
from foldproof.comparison.training import tell_training
from foldproof.comparison.trial import Part, Trial, find_mismatch, pair_up, tell_apart, tell_other_draws, tell_strides
from foldproof.errors import FoldproofError, brief
from foldproof.generators import (
    kept_generators,
    kept_other_generators,
    read_states,
    seed_generators,
    seed_other_generators,
)
from foldproof.graph.text import operator_name, source_of
from foldproof.graph.view import view_graph
from foldproof.log import giving_up
from foldproof.program import as_program, require_ordinary
from foldproof.program.gradients import tell_unseen_gradients
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.proof.variation import named_inputs
from foldproof.rounding.operands import rounded_as_set
from foldproof.thresholds import (
    MAX_PLAIN_SIGMA,
    MAX_ROUNDING_RATIO,
    MIN_LOCAL_SIGMAS,
    MIN_UNKNOWN_RATIO,
    RUNS_AT_GIVEN_INPUTS,
    RUNS_AT_OTHER_INPUTS,
)
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Counterexample, Difference, Kind, Rounding, Verdict
from foldproof.version import __version__

Progress = Callable[[int, int | None, str], None]

_NEITHER = "neither side is wrong"
EXPLAINED_INPUTS = 2
"""Inputs at which a lower precision must explain the difference, beside the worst one."""


def compare(
    reference: Any,
    candidate: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    trials: int | None = None,
    seed: int = 0,
    locate: bool = True,
    precision: torch.dtype | str | None = None,
    outputs: Sequence[str | int] | None = None,
    mask: Tensor | str | None = None,
    progress: Progress | None = None,
) -> CompareResult:
    """Decide if the numbers of two programs differ by rounding, or because one is wrong.

    Everything that a call changes is compared: outputs (values, shape, dtype, and memory that they share with each
    other and with inputs), and inputs, parameters and buffers after the call. Where a program writes to its parameters
    or buffers, it is called twice in a row, from the same state each time, the second time on other inputs. Strides of
    outputs are told, and make neither side wrong.

    Args:
        reference: an nn.Module in the state that it is to run in, a GraphModule, or an ExportedProgram. It is exported
            to compute its float64 result and to see its operators; where it can't be, its operators are recorded as
            they run. Saved outputs (or the name of their file) can be compared with saved outputs, without ``inputs``.
        candidate: what gives the other numbers: any callable or module (compiled by `torch.compile`, say), an
            ExportedProgram, an ``onnxruntime.InferenceSession``, or saved outputs (tensors or arrays). A callable may
            return arrays. A string is what ``foldproof compare --against`` takes: the name of a compiler backend
            (``"inductor"``, ``"aot_eager"``, ``"eager"``) to compile the reference with; ``"file.py:callable"``, which
            returns another program; or a file: ``.pt2``, ``.pt`` (TorchScript, or saved outputs), ``.pte`` (run by
            ExecuTorch), ``.onnx`` (ONNX Runtime), ``.xml`` (OpenVINO), ``.npy`` and ``.npz`` (saved outputs).
        inputs: positional arguments of both.
        kwargs: keyword arguments of both.
        dynamic_shapes: as in `torch.export.export`; the reference is then compared at other sizes, too.
        trials: number of inputs to try: the given ones, and others whose elements are drawn from theirs. By default 24,
            and fewer, down to 4, where they have more than 4 million elements together.
        seed: fixes the random draws. Everything else is deterministic, as far as both programs are.
        locate: look for the operators that a difference comes from, too; compiled candidates are then compiled several
            times.
        precision: what the candidate is meant to round to. With a dtype, or its name, outputs may have that dtype, and
            the noise floor is that of a program which rounds parameters, inputs and every result to it. ``"tf32"`` and
            ``"int8"`` round the operands of products.
        outputs: the outputs that count, by key, or by number as verdicts tell it; all by default.
        mask: true at the positions that count, in the first dimensions of outputs of that shape; or the name of the
            input that says so, such as ``"attention_mask"``, which says it of other inputs, too.
        progress: called with (done, total, what).

    Saved outputs, files of other runtimes and plain callables do not show all of that; a note then says what was not
    compared. State is what `nn.Module` registers: other Python state is put back, and not compared. Outputs that are
    neither tensors nor numbers are not compared, either.

    Neither program, nor its parameters or inputs, is changed, unless the candidate is a callable that changes things
    that foldproof can't see.

    Raises:
        FoldproofError: the reference can't be exported, something does not run, or a file can't be loaded.
    """
    if is_saved(reference):
        return _of_saved(reference, candidate)
    return _Comparison(
        reference,
        candidate,
        as_inputs(inputs),
        dict(kwargs or {}),
        dynamic_shapes,
        trials,
        seed,
        locate,
        precision,
        (outputs, mask),
        progress,
    ).result()


def _of_saved(reference: Any, candidate: Any) -> CompareResult:
    if not is_saved(candidate):
        raise FoldproofError(
            "saved outputs can be compared with saved outputs alone; give the program first to compare it with these"
        )
    start = time.perf_counter()
    verdict, largest, scale = judge_saved(reference, candidate)
    against = os.fspath(candidate) if isinstance(candidate, (str, os.PathLike)) else "saved outputs"
    return CompareResult(
        verdict,
        truth_distance=None,
        noise_floor=None,
        sources=(),
        found="",
        against=against,
        inputs=1,
        identical=verdict.kind is Kind.ROUNDING,
        largest=largest,
        scale=scale,
        seconds=time.perf_counter() - start,
        versions=_versions(),
    )


class _OtherShape(Exception):
    def __init__(self, problem: str, given: Inputs) -> None:
        super().__init__(problem)
        self.problem, self.given = problem, given


class _Comparison:
    def __init__(
        self,
        reference: Any,
        candidate: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dynamic_shapes: Any,
        trials: int | None,
        seed: int,
        locate: bool,
        precision: torch.dtype | str | None,
        part: tuple[Sequence[str | int] | None, Tensor | str | None],
        progress: Progress | None,
    ) -> None:
        self._start = time.perf_counter()
        self._tell = progress or (lambda done, total, what: None)
        self._original, self._args, self._kwargs, self._seed = reference, args, kwargs, seed
        self._trials = count_trials(args, kwargs) if trials is None else max(trials, 1)
        self._locate, self._precision = locate, precision_of(precision)
        dtype = None if self._precision is None else self._precision.dtype
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                require_ordinary("an input", tensor)
        self._tell(0, None, "exporting")
        leaves = as_program(reference).leaves
        self._leaves = tuple(leaves)
        self._graph = Graph(reference, args, kwargs, dynamic_shapes, dtype, may_record=True)
        self._recordings = [self._graph]
        self._recording_of: dict[int, tuple[Inputs, Graph]] = {}
        self._notes = [
            f"an output is {_shown(x)}, which is no number and was not compared" for x in self._graph.other_outputs
        ]
        self._notes += tell_unseen_gradients(reference, (args, kwargs))
        module = reference.module(check_guards=False) if isinstance(reference, ExportedProgram) else reference
        own = separate(module)
        self._selects = part != (None, None)
        self._graph.select = selection(self._graph, (args, kwargs), *part)
        self._reference = Side(self._selected(caller(own)), own)
        self._tell(0, None, "loading the candidate")
        self._candidate: Candidate = match_by_order(candidate_of(candidate, reference), self._graph)
        self._candidate = replace(self._candidate, run=self._selected(self._candidate.run))
        c = self._candidate
        self._other = Side(c.run, c.holder, hidden=bool(c.hidden), copies=c.copies, restart=c.restart)
        meant = None if self._precision is None else self._precision.operands
        held = [*(leaf.tensor for leaf in leaves.values()), *tree_leaves((args, kwargs))]
        self._operands = meant or rounded_as_set({x.device.type for x in held if isinstance(x, Tensor)})
        self._redraws: bool | None = None
        self._far: tuple[str, TruthDistance] | None = None
        self._own: Graph | None = None
        self._has_own: bool | None = None
        self._keeps_state = self._graph.writes_state
        self._draws = False  # whether the reference draws random numbers
        self._given: Inputs = (args, kwargs)
        self._starts: dict[int, tuple[Inputs, int]] = {}
        self._uncompared = ""
        if self._operands is not None and meant is None:
            self._notes.append(
                "float32 products may round their operands here (fp32_precision of torch.backends): the floor allows it"
            )

    def _selected(self, run: Run) -> Run:
        """``run``, of whose outputs those that count are taken."""
        return lambda args, kwargs: self._graph.select(run(args, kwargs), (tuple(args), dict(kwargs)))

    def result(self) -> CompareResult:
        with kept_generators(), kept_other_generators():
            try:
                return self._result()
            finally:
                self._other.put_back()

    def _result(self) -> CompareResult:
        given = self._given
        self._tell(0, None, f"running {self._candidate.name}")
        first, one = self._find_state(given)
        # From another state of the generators, whatever draws random numbers gives others.
        other = given if self._draws else (self._args, self._kwargs)
        again, two = self._run_reference(other), self._run_candidate(other)
        self._draws |= self._drew(again, other)
        problem = find_mismatch(first, one)
        if problem is not None:
            refuted = self._follow_order(self._refuted_by_shape(problem, given), first, one)
            return self._ended(self._follow_draws(refuted), first)
        call = self._graph.higher_order
        if call is not None:
            where = f" at {source_of(call)}" if source_of(call) else ""
            reason = f"{call.target}{where} runs a part of the program by itself, where rounding is not followed"
            return self._ended(Verdict(Kind.UNDECIDED, reason), first)
        own = _tell_own_generator(self._graph)
        if own is not None:
            return self._ended(Verdict(Kind.UNDECIDED, own), first)
        trial = self._try_given(first, one, again, two)
        self._tell_uncompared(first[0], one[0])
        unstable = self._unstable(trial, first, again, one, two)
        if unstable is not None:
            return self._ended(Verdict(Kind.UNDECIDED, unstable), first)
        try:
            trials = self._others(trial)
        except _OtherShape as found_at:
            refuted = self._refuted_by_shape(found_at.problem, found_at.given)
            return self._ended(self._follow_draws(refuted), first)
        exported, unexplained = self._graph, self._follow_export(trials)
        if unexplained is not None:
            return self._ended(Verdict(Kind.UNDECIDED, unexplained), first)
        if self._graph is not exported:
            trials = self._others(self._try_given(first, one, again, two))
        verdict = self._follow_draws(self._verdict(trials))
        if self._draws:
            return self._build(verdict, trials, Findings((), ""), first, None)
        if verdict.kind is Kind.REFUTED:
            verdict = self._follow_precision(self._follow_order(verdict, first, one), trials)
        found = Findings((), "")
        seen: tuple[Layer, ...] = ()
        worst = max(trials, key=lambda t: t.outputs.badness)
        large = worst.outputs.judged is not None and worst.outputs.judged.wrong is not None
        if self._locate and worst.outputs.judged is not None:
            self._tell(0, None, "looking for where it comes from")
            graph = self._graph_at(worst.given)
            found = find_sources(
                graph, self._candidate, worst.given, worst.outputs.values, self._operands, large, self._tell
            )
            if worst is not trials[0]:
                found = replace(
                    found, told=f"{found.told} (at the worst of the inputs tried, which is not the given one)"
                )
            agree = not large and verdict.kind is Kind.ROUNDING
            seen = layers(graph, found.values, worst.given, self._seed, self._operands, agree)
            verdict = self._follow_source(self._follow_unknown(verdict, graph, found, worst, len(trials)), found, worst)
        verdict = self._follow_arguments(verdict)
        reproduction = None
        if verdict.kind is Kind.REFUTED and found.part is not None and large:
            at = largest_source(found.sources)
            verdict = replace(verdict, difference=Difference(at.node, at.operator, at.source))
            reproduction = reproduce(found.part, self._candidate)
        if verdict.kind is Kind.REFUTED and verdict.difference is None:
            verdict = replace(verdict, difference=self._writer(trials))
        return self._build(verdict, trials, found, first, reproduction, seen)

    def _follow_draws(self, verdict: Verdict) -> Verdict:
        """The verdict in view of random numbers that the reference draws, and that a candidate has to draw, too."""
        if not self._draws:
            return verdict
        if verdict.kind is not Kind.REFUTED:
            self._notes.append("the reference draws random numbers; each trial began at the same state of generators")
            return verdict
        reason = (
            "the reference draws random numbers, and the candidate, from the same state of the generators, draws others"
            f" or computes something else ({verdict.reason})"
        )
        if self._candidate.compile is not None:
            reason += "; torch.compile draws the same with torch._inductor.config.fallback_random"
        return Verdict(Kind.UNDECIDED, reason, self._claim(1, Scope.POINT), rounding=verdict.rounding)

    def _follow_unknown(self, verdict: Verdict, graph: Graph, found: Findings, worst: Trial, count: int) -> Verdict:
        """The verdict in view of operators whose rounding is not known, and that gave the same bits."""
        if verdict.kind is not Kind.UNDECIDED or not graph.unknown or not worst.outputs.is_wrong:
            return verdict
        nodes = [n.name for n in graph.nodes if str(n.target) in graph.unknown]
        differ = {source.node for source in found.sources}
        if not nodes or any(name not in found.values or name in differ for name in nodes):
            return verdict
        return replace(self._of_wrong(worst, worst.outputs, count, same_bits=True), rounding=verdict.rounding)

    def _follow_source(self, verdict: Verdict, found: Findings, trial: Trial) -> Verdict:
        """The verdict in view of an operator that is beyond its own rounding on equal operands."""
        at = largest_source(found.sources) if found.sources and self._precision is None else None
        if at is None or at.before or not at.measured or at.sigma <= MIN_LOCAL_SIGMAS or verdict.kind is Kind.REFUTED:
            return verdict
        where = f" at {at.source}" if at.source else ""
        told = f"{short(at.operator)}{where} gives other numbers on equal operands than its own rounding explains"
        if self._far is None or verdict.kind is Kind.ROUNDING:
            self._notes.append(f"{told}, which the outputs hardly show")
            return verdict
        return Verdict(
            Kind.REFUTED,
            f"no rounding: {tell_far(*self._far)}, and {told}",
            claim=self._claim(1, Scope.POINT),
            rounding=verdict.rounding,
            difference=Difference(at.node, at.operator, at.source),
            counterexample=self._counterexample(trial, trial.outputs),
        )

    def _follow_order(self, verdict: Verdict, reference: Sequence[Call], candidate: Sequence[Call]) -> Verdict:
        told = tell_other_order(reference[0].outputs, candidate[0].outputs) or tell_other_inputs(
            self._candidate, (self._args, self._kwargs), reference[0].outputs
        )
        return verdict if told is None else replace(verdict, reason=f"{told} ({verdict.reason})")

    def _follow_arguments(self, verdict: Verdict) -> Verdict:
        """The verdict with what differs, if the two graphs are the same but for arguments or parameters."""
        told = "" if self._own is None else tell_arguments(self._graph, self._own)
        if not told:
            return verdict
        if verdict.kind is Kind.ROUNDING:
            return replace(verdict, reason=verdict.reason.replace(_NEITHER, f"though {told}"))
        return replace(verdict, reason=f"{told}: {verdict.reason}")

    def _follow_precision(self, verdict: Verdict, trials: Sequence[Trial]) -> Verdict:
        """The verdict with the lower precision that would explain it; the dtype of an output tells which is meant."""
        some = [*trials[:EXPLAINED_INPUTS], max(trials, key=lambda t: max(part.badness for part in t.parts))]
        # Where rounding in the reference's own precision would explain it, a lower one says nothing.
        if self._precision is not None or not any(part.is_wrong for trial in some for part in trial.parts):
            return verdict
        graphs = [self._graph_at(trial.given) for trial in some]
        found = explain(graphs, some, [self._calls(trial.given) for trial in some], self._seed)
        if not found:
            return verdict
        dtypes = [str(x.dtype).removeprefix("torch.") for x in some[0].outputs.values.candidate]
        if "int8" in found and graphs[0].quantizes:
            dtypes = ["int8"]
        meant = next((name for name in found if name in dtypes), found[0])
        others = [PRECISIONS[name].words for name in found if name != meant]
        more = f", as it would be in {' or '.join(others)}" if others else ""
        told = f"explained if computed in {PRECISIONS[meant].words}{more}: --precision {meant} accepts that"
        return replace(verdict, reason=f"{verdict.reason} ({told})")

    # ------------------------------------------------------------------ running

    def _find_state(self, given: Inputs) -> tuple[list[Call], list[Call]]:
        """Both sides' calls, a second one only where a program has state that it writes.

        Raises:
            FoldproofError: either side does not run.
        """
        if not self._candidate.given_only:
            self._redraws = can_redraw(self._args, self._kwargs, self._seed + 1, self._outputs_of_reference)
        first, one = self._run_reference(given), self._run_candidate(given)
        self._draws = self._advances(given)
        if self._draws:
            self._trials = max(self._trials, 2)  # a mask of one draw is right at one state
        if self._keeps_state or not (first[0].writes_state or one[0].writes_state):
            return first, one
        self._keeps_state = True
        return self._run_reference(given), self._run_candidate(given)

    def _follow_export(self, trials: Sequence[Trial]) -> str | None:
        """Record the reference where its exported program is not what the module computes.

        That of a module which asks whether it is being compiled is one. The rounding of the program does not explain
        the module's numbers, and the recording gives their very bits. Return a sentence if it does not, either.
        """
        at = next((t for t in trials if self._is_strange(t)), None)
        if at is None or self._graph.recorded:
            return None
        why = "its exported program computes something else than the module does"
        with giving_up("recording a reference that exports another program"):
            graph = Graph(self._original, *at.given, precision=self._graph.precision, may_record=True, recorded=why)
            graph.select = self._graph.select
            if self._takes(graph, at.given, at.outputs.values.reference):
                self._graph, self._recordings = graph, [graph]
                return None
        return f"the reference has no float64 result: {why}, and its operators can't be recorded"

    def _is_strange(self, trial: Trial) -> bool:
        """Return True if the rounding of the graph does not explain the reference's own numbers."""
        judged = [part.judged for part in trial.parts if part.judged is not None]
        if not judged or self._takes(self._graph, trial.given, trial.outputs.values.reference):
            return False
        discrete = any(not x.dtype.is_floating_point for part in trial.parts for x in part.values.reference)
        return discrete or any(one.floor.ratio(one.reference) > MAX_ROUNDING_RATIO for one in judged)

    def _start_from(self, given: Inputs) -> None:
        """Put the generators into the state from which every run at these inputs starts."""
        _, state = self._starts.setdefault(id(given), (given, self._seed + len(self._starts)))
        seed_generators(state)  # the inputs are kept, so that no others get their id
        seed_other_generators(state)

    def _drew(self, calls: Sequence[Call], given: Inputs) -> bool:
        """True if calls at these inputs left a generator in another state than they started from."""
        self._start_from(given)
        return calls[-1].generators != state_of_generators()

    def _advances(self, given: Inputs) -> bool:
        """True if the reference's graph draws random numbers: it leaves a generator in another state."""
        self._start_from(given)
        before = read_states()
        self._graph.run(*given)
        return not all(map(torch.equal, before, read_states()))

    def _outputs_of_reference(self, given: Inputs) -> list[Tensor] | None:
        calls = self._try_reference(given)
        return None if calls is None else [t for c in calls for t in c.outputs]

    def _calls(self, given: Inputs) -> list[Inputs]:
        """The inputs of the calls of one trial: a second call has others, for equal ones hide state.

        Saved numbers are of one call, and a runtime that can't be restarted carries no state to a second one.
        """
        stateless = self._candidate.copies and self._candidate.restart is None
        if not self._keeps_state or self._candidate.given_only or stateless:
            return [given]
        second = given if self._redraws is None else redrawn(*given, self._seed + 1, self._redraws)
        return [given, second]

    def _run(self, side: Side, given: Inputs) -> list[Call]:
        if self._keeps_state:
            side.put_back()
        self._start_from(given)
        return [side.call(inputs) for inputs in self._calls(given)]

    def _run_reference(self, given: Inputs) -> list[Call]:
        try:
            return self._run(self._reference, given)
        except FoldproofError:
            raise
        except Exception as error:
            raise FoldproofError(f"the reference does not run on the inputs ({brief(error)})") from error

    def _run_candidate(self, given: Inputs) -> list[Call]:
        try:
            return self._run(self._other, given)
        except FoldproofError:
            raise
        except Exception as error:
            raise FoldproofError(f"{self._candidate.name} does not run on the inputs ({brief(error)})") from error

    def _perturbed(self, given: Inputs, seed: int, amplitude: float) -> dict[str, Tensor]:
        seed += self._seed * 100_003
        graph = self._graph_at(given)
        self._start_from(given)
        return name_values(graph.call_perturbed(self._calls(given), seed, amplitude, self._operands))

    def _graph_at(self, given: Inputs) -> Graph:
        """The reference's graph; of one that was recorded, the recording of the way that these inputs take."""
        if not self._graph.recorded:
            return self._graph
        if id(given) not in self._recording_of:
            outputs = self._run_reference(given)[0].outputs
            graph = next((g for g in self._recordings if self._takes(g, given, outputs)), None)
            if graph is None:
                self._start_from(given)
                graph = Graph(self._original, *given, precision=self._graph.precision, may_record=True)
                graph.select = self._graph.select
                graph.run(*given)
                self._recordings.append(graph)
            self._recording_of[id(given)] = given, graph  # kept, so that no other inputs get this id
        return self._recording_of[id(given)][1]

    def _takes(self, graph: Graph, given: Inputs, outputs: Sequence[Tensor]) -> bool:
        """True if a recording gives the outputs of these inputs."""
        self._start_from(given)
        with giving_up("running a recording at other inputs"):
            return identical(graph.run(*given), outputs)
        return False

    def _try_given(self, first: list[Call], one: list[Call], again: list[Call], two: list[Call]) -> Trial:
        """The trial at the given inputs, of the first calls of both sides, and of the second ones."""
        trial = self._try(self._given, RUNS_AT_GIVEN_INPUTS, first, one)
        # A first call may draw to set things up, so that the second one tells.
        return replace(trial, unseen=trial.unseen or tell_other_draws(again, two))

    def _try(
        self,
        given: Inputs,
        runs: int,
        reference: list[Call],
        candidate: list[Call],
        thoroughly: bool = True,
        known: Trial | None = None,
    ) -> Trial:
        if len(self._graph.dtypes) == 0:
            self._graph.run(*given)
        perturb = functools.cache(functools.partial(self._perturbed, given))
        graph = self._graph_at(given)
        own = _tell_own_generator(graph)
        self._draws |= own is not None
        self._start_from(given)
        try:
            float64 = name_values(graph.call_in_float64(self._calls(given)))
        except RuntimeError as error:  # an operator without a kernel for float64
            raise FoldproofError(f"the reference has no float64 result ({brief(error)})") from error
        parts, unseen = pair_up(reference, candidate, float64)
        floors = {} if known is None else {tuple(part.values.names): part.judged for part in known.parts}
        judged = []
        for part in parts:
            if not identical(part.values.reference, part.values.candidate):
                found = judge_alike(part.values, floors.get(tuple(part.values.names)))
                part = replace(part, judged=found or judge(part.values, part.reading(perturb), runs, thoroughly))
            judged.append(part)
        if any(part.judged is not None and part.judged.is_doubted for part in judged):
            judged = self._judged_by_own(given, candidate, judged)
        problems, remarks = tell_apart(reference, candidate, self._graph.precision), tell_strides(reference, candidate)
        return Trial(given, judged, float64, perturb, problems, own or unseen, remarks)

    def _find_own(self, given: Inputs, outputs: Sequence[Tensor]) -> Graph | None:
        """The graph of what the candidate runs, if it shows one; looked for once, as exporting takes its time."""
        if self._has_own is None:
            self._own = find_own_graph(self._candidate, self._graph, given, outputs)
            self._has_own = self._own is not None
        return self._own

    def _judged_by_own(self, given: Inputs, candidate: Sequence[Call], parts: list[Part]) -> list[Part]:
        """Parts that the reference's floor does not explain, judged by that of the candidate's own formula."""
        graph = self._find_own(given, candidate[0].outputs)
        own = None if graph is None else own_at(graph, self._calls(given), self._seed, self._operands)
        if own is None:
            return parts
        made = []
        for part in parts:
            second = own.judge(part) if part.judged is not None and part.judged.is_doubted else None
            if second is not None and not second.is_doubted:
                second.notes.append("in float64 both agree: the formula of the candidate loses more to rounding")
                part = replace(part, judged=second)
            made.append(part)
        return made

    def _agree_in_float64(self, trials: Sequence[Trial]) -> bool | None:
        """True if both sides' graphs are one function at all these inputs; None where the candidate shows none."""
        for trial in trials:
            graph = self._find_own(trial.given, trial.outputs.values.candidate)
            own = None if graph is None else own_at(graph, self._calls(trial.given), self._seed, self._operands)
            if own is None or not own.is_equal(trial.parts):
                return None if own is None else False
        return True

    def _refuted_by_proof(self, program: Any, count: int) -> Verdict | None:
        """REFUTED where the candidate shows another function, which a coarse floor hides."""
        proved = prove_both(self._original, program, self._args, self._kwargs)
        if proved is None or proved.kind is not Kind.REFUTED:
            return None
        reason = f"no rounding, though it is as small: the two differ in float64, too, and are {proved.reason}"
        return replace(proved, reason=reason, claim=proved.claim or self._claim(count))

    def _others(self, first: Trial) -> list[Trial]:
        """The trial at the given inputs, and those at others of the same sizes, then at other sizes.

        Raises:
            _OtherShape: the candidate's outputs have another shape than the reference's.
        """
        made = [first]
        if self._candidate.given_only:
            self._notes.append("there are numbers for the given inputs only")
            return made
        for seed in range(10 * self._trials if self._redraws is not None or self._draws else 0):
            if len(made) >= self._trials:
                break
            self._tell(len(made), self._trials, "trying other inputs")
            given: Inputs = (self._args, self._kwargs)  # which are others where random numbers are drawn
            if self._redraws is not None:
                given = redrawn(self._args, self._kwargs, self._seed + 1 + seed, self._redraws)
            if not self._add(made, given):
                break
        if len(made) == 1 and self._trials > 1:
            self._notes.append("no other inputs were tried: none can be drawn from the given ones")
        for given in sampled_inputs(self._graph.program, self._args, self._kwargs)[1:]:
            if not self._add(made, given):
                break
        return made

    def _try_reference(self, given: Inputs) -> list[Call] | None:
        try:
            return self._run_reference(given)
        except FoldproofError:
            return None

    def _add(self, made: list[Trial], given: Inputs) -> bool:
        """One more trial, unless the reference refuses the input; False where the candidate does."""
        reference = self._try_reference(given)
        if reference is None:
            return True
        try:
            candidate = self._run_candidate(given)
        except FoldproofError as error:
            self._notes.append(f"other inputs were left out: {error}")
            return False
        self._draws |= self._drew(reference, given)  # a program may draw at some inputs only
        problem = find_mismatch(reference, candidate)
        if problem is not None:
            raise _OtherShape(problem, given)
        doubtful = not any(part.is_wrong for t in made for part in t.parts)
        trial = self._try(given, RUNS_AT_OTHER_INPUTS, reference, candidate, doubtful, known=made[0])
        made.append(replace(trial, unseen=trial.unseen or tell_other_draws(reference, candidate)))
        return True

    def _tell_uncompared(self, reference: Call, candidate: Call) -> None:
        """Note the inputs and state that the reference writes, and that the candidate does not show."""
        lost = sorted(name for name in reference.written if name not in {**candidate.inputs, **candidate.state})
        if not lost:
            return
        if not self._candidate.hidden:
            told = f"{', '.join(lost)} after the call: not compared, because the candidate has nothing of that name"
        elif self._candidate.copies:
            told = f"inputs and state after the call were not compared, because {self._candidate.hidden}"
        else:
            told = f"state after the call was not compared, because {self._candidate.hidden}"
        self._uncompared = told

    # ------------------------------------------------------------------ verdicts

    def _unstable(
        self, trial: Trial, first: list[Call], again: list[Call], one: list[Call], two: list[Call]
    ) -> str | None:
        """A sentence if a side that is run twice differs from itself by more than rounding."""
        for name, a, b in (("the reference", first, again), ("the candidate", one, two)):
            if find_mismatch(a, b) is not None:
                return f"{name} gives outputs of other shapes when it is run again"
            parts, _ = pair_up(a, b, trial.float64)
            parts = [part for part in parts if not identical(part.values.reference, part.values.candidate)]
            for part in parts:
                values = part.values
                judged = judge(values, part.reading(trial.perturb), RUNS_AT_GIVEN_INPUTS)
                apart = distance(values.reference, values.candidate, values.floats)
                itself = max((float(d.abs().max()) for d in apart if d.numel()), default=float("nan"))
                if judged.difference.rms > MAX_ROUNDING_RATIO * max(judged.floor.null.rms, 1) or judged.wrong:
                    return (
                        f"{name} is random, or changes by being run: it differs from itself by {itself:.3g} when it is"
                        " run again"
                    )
                self._notes.append(
                    f"{name} is not deterministic: it differs from itself by {itself:.3g}, which is rounding"
                )
        return None

    def _verdict(self, trials: Sequence[Trial]) -> Verdict:
        count = len(trials)
        empty = _nothing(trials)
        if empty is not None:
            return Verdict(Kind.UNDECIDED, empty, self._claim(count))
        apart = next((t for t in trials if t.problems), None)
        unseen = next((t.unseen for t in trials if t.unseen), None)
        if all(part.judged is None for t in trials for part in t.parts):
            if apart is not None:
                return self._refuted_by_shape(apart.problems[0], apart.given)
            if unseen is not None:
                return Verdict(Kind.UNDECIDED, unseen, self._claim(count))
            what = "the outputs are bit-identical" if self._uncompared else "bit-identical"
            return Verdict(
                Kind.ROUNDING,
                f"{what} on all {count} inputs" if count > 1 else f"{what} on the given inputs",
                claim=self._claim(count),
                rounding=Rounding(0.0, 0.0, count, 0.0),
            )
        worst = max((part for t in trials for part in t.parts), key=lambda part: part.badness)
        judged = worst.judged
        assert judged is not None
        place = judged.place
        sigma = judged.candidate.worst
        rounding = None
        if place is not None and place.sigma:
            rounding = Rounding(sigma * place.sigma, place.sigma, count, sigma)
        wrong = next(((t, part) for t in trials for part in t.parts if part.is_wrong), None)
        if wrong is not None:
            trial, part = wrong
            return replace(self._of_wrong(trial, part, count), rounding=rounding)
        if apart is not None:
            return self._refuted_by_shape(apart.problems[0], apart.given)
        every = [part.judged for t in trials for part in t.parts if part.judged is not None]
        far = find_far([part.values for part in t.parts] for t in trials) if self._precision is None else None
        self._far = far
        absurd = self._vacuous(trials)
        agrees = self._agree_in_float64(trials if far or absurd else trials[:1])
        program = self._candidate.program or (None if self._own is None else self._own.program)
        program = None if self._selects else program  # a proof is about all outputs
        verdict = None
        if agrees and far:
            reason = f"{tell_far(*far)}, but in float64 the two agree: the candidate computes it less carefully"
            verdict = Verdict(Kind.ROUNDING, reason)
        elif far:
            verdict = judge_far(*far, self._original, program, self._args, self._kwargs, agrees)
        if verdict is None and agrees is False and self._precision is None:
            verdict = self._refuted_by_proof(program, count)
        if verdict is not None and not (unseen and verdict.kind is Kind.ROUNDING):
            return replace(verdict, claim=verdict.claim or self._claim(count), rounding=rounding)
        unsure = next((j.unsure for j in every if j.unsure), None) or unseen
        unsure = unsure or (None if agrees else absurd)
        if unsure is not None:
            return Verdict(Kind.UNDECIDED, unsure, self._claim(count), rounding=rounding)
        if sigma > MAX_PLAIN_SIGMA:
            self._notes.append(
                f"rounding moves the elements unevenly: the worst one is {sigma:.3g} sigma away, and perturbed runs of"
                f" the reference reach {judged.floor.null.worst:.3g}"
            )
        same = sum(all(part.judged is None for part in t.parts) for t in trials)
        told = f" ({same} of {count} inputs bit-identical)" if same else ""
        right = f"though {tell_far(*far)}" if far else _NEITHER
        return Verdict(
            Kind.ROUNDING,
            f"the difference is within what rounding explains{', ' if far else ': '}{right}{told}",
            claim=self._claim(count),
            rounding=rounding,
        )

    def _of_wrong(self, trial: Trial, part: Part, count: int, same_bits: bool = False) -> Verdict:
        """REFUTED, or UNDECIDED where the float64 result or the floor is in doubt.

        ``same_bits`` says that operators whose rounding is not known gave the same bits on equal operands.
        """
        assert part.judged is not None
        reason = part.judged.wrong or ""
        if self._graph.unknown and not same_bits and not _is_far_beyond(part.judged):
            names = ", ".join(sorted(self._graph.unknown))
            doubt: str | None = f"{reason}, but how far {names} may round is not known"
        else:
            doubt = self._doubt(part)
        if doubt:
            return Verdict(Kind.UNDECIDED, doubt, self._claim(count))
        return Verdict(
            Kind.REFUTED,
            f"no rounding: {reason}",
            claim=self._claim(1, Scope.POINT),
            counterexample=self._counterexample(trial, part),
        )

    def _writer(self, trials: Sequence[Trial]) -> Difference | None:
        """The operator whose value the reference leaves in the state or input that is wrong, if outputs are right."""
        wrong = [part for t in trials for part in t.parts if part.is_wrong]
        if not wrong or any(len(part.values.names) != 1 or " after " not in part.values.names[0] for part in wrong):
            return None
        node = self._graph.writer_of(wrong[0].values.names[0].partition(" after ")[0])
        return None if node is None else Difference(node.name, operator_name(node), source_of(node))

    def _doubt(self, part: Part) -> str | None:
        """A sentence if the float64 result speaks for the candidate."""
        judged = part.judged
        assert judged is not None
        null = judged.floor.null
        if (
            judged.reference.rms > MAX_ROUNDING_RATIO * max(null.rms, 1)
            and judged.candidate.rms <= judged.reference.rms / 2
        ):
            return (
                "the two differ by more than rounding explains, but it is the reference that is further from the"
                f" float64 result ({judged.reference.rms:.3g} sigma, the candidate {judged.candidate.rms:.3g})"
            )
        return None

    def _vacuous(self, trials: Sequence[Trial]) -> str | None:
        """A sentence if rounding explains anything at all here, so that agreeing says nothing."""
        parts = [part for t in trials for part in t.parts if part.judged is not None]
        told = (tell_absurd(part.values, part.judged.floor) for part in parts if part.judged is not None)
        return next((one for one in told if one is not None), None)

    def _claim(self, points: int, scope: Scope = Scope.TRIED) -> Claim:
        varied = [name for name, x in named_inputs(self._args, self._kwargs) if isinstance(x, Tensor)]
        held = [Held(name, Role.PARAMETER, Why.CHOSEN) for name in self._leaves]
        others = points > 1 and (self._redraws is not None or not self._draws)  # else only the draws were others
        return Claim(scope, tuple(varied if others else ()), held=tuple(held), points=points)

    def _describe(self, given: Inputs) -> str:
        return "the given inputs" if given[0] is self._args else "inputs drawn from the given ones"

    def _counterexample(self, trial: Trial, part: Part) -> Counterexample:
        assert part.judged is not None
        inputs = tuple(tree_leaves(trial.given))
        p = part.judged.place
        if p is None:
            return Counterexample(self._describe(trial.given), 0, (), 0.0, 0.0, 0.0, 0.0, inputs)
        return Counterexample(
            self._describe(trial.given),
            p.output,
            p.index,
            p.reference,
            p.candidate,
            abs(p.candidate - p.reference),
            p.sigma,
            inputs,
            name=part.values.names[p.output],
        )

    def _refuted_by_shape(self, problem: str, given: Inputs) -> Verdict:
        described = f"{self._describe(given)}: {problem}"
        shown = Counterexample(described, 0, (), 0.0, 0.0, 0.0, 0.0, tuple(tree_leaves(given)))
        return Verdict(Kind.REFUTED, problem, claim=self._claim(1, Scope.POINT), counterexample=shown)

    # ------------------------------------------------------------------ the result

    def _ended(self, verdict: Verdict, reference: Sequence[Call]) -> CompareResult:
        return self._build(verdict, (), Findings((), ""), reference, None)

    def _build(
        self,
        verdict: Verdict,
        trials: Sequence[Trial],
        found: Findings,
        reference: Sequence[Call],
        reproduction: str | None,
        seen: tuple[Layer, ...] = (),
    ) -> CompareResult:
        notes = [*self._notes, *self._candidate.notes()]
        if self._graph.recorded:
            notes.append(
                "the reference's operators were recorded as they ran at each input, since it has no graph for all"
                f" inputs ({self._graph.recorded})"
            )
        if self._uncompared:
            notes.append(self._uncompared)
        parts = [part for t in trials for part in t.parts]
        for part in parts:
            if part.judged is not None:
                notes += part.judged.notes
        if trials and trials[0].outputs.judged is not None:
            notes += flips(trials[0].outputs.values, trials[0].outputs.judged.floor)
        notes += [told for t in trials for told in (*t.problems, *t.remarks) if told != verdict.reason]
        notes += _empty_outputs(trials)
        notes += self._exactness(trials)
        first = reference[0].outputs
        scale = max((float(number(t).abs().max()) for t in first if t.numel()), default=0.0)
        largest = 0.0
        for part in parts:
            apart = distance(part.values.candidate, part.values.reference, range(len(part.values.reference)))
            largest = max([largest, *(float(d.abs().max()) for d in apart if d.numel())])
        outputs = [t.outputs.values for t in trials]
        seconds = time.perf_counter() - self._start
        return CompareResult(
            verdict=replace(verdict, notes=tuple(dict.fromkeys(notes)), seconds=seconds),
            truth_distance=truth_distance(outputs) if trials else None,
            noise_floor=_noise_floor(trials),
            sources=found.sources,
            found=found.told,
            reproduction=reproduction,
            against=self._candidate.name,
            inputs=len(trials) or 1,
            outputs=_output_distances(trials[0]) if trials else (),
            distances=tuple(map(_input_distance, trials)),
            layers=seen,
            drawing=view_graph(self._graph.program),
            identical=bool(trials) and verdict.kind is Kind.ROUNDING and all(part.judged is None for part in parts),
            largest=largest,
            scale=scale if math.isfinite(scale) else 0.0,
            seconds=seconds,
            versions=_versions(),
            training=tell_training(self._original, self._candidate),
            uncompared=self._uncompared,
        )

    def _exactness(self, trials: Sequence[Trial]) -> list[str]:
        """Sentences on what weakens the comparison."""
        if not trials:
            return []
        told = []
        outputs = trials[0].outputs.values
        if any(t.dtype in (torch.float64, torch.complex128) for t in outputs.reference):
            told.append("the reference computes in float64 itself, so its distance to the float64 result says nothing")
        if len(trials) > 1 and _insensitive(outputs, trials[1].outputs.values):
            told.append("the outputs hardly depend on the inputs, so what goes wrong before may not be seen in them")
        self._start_from(trials[0].given)
        if not identical(self._graph.run(*trials[0].given), outputs.reference):
            told.append(
                "the exported graph, of which the float64 result is told, rounds in other places than the reference"
            )
        return told


def _tell_own_generator(graph: Graph) -> str | None:
    """Return a sentence if a graph draws from a generator that can't be put back."""
    draw = graph.own_generator
    if draw is None:
        return None
    where = f" at {source_of(draw)}" if source_of(draw) else ""
    return f"{operator_name(draw)}{where} draws from a generator of its own, so that every run has other numbers"


def _is_far_beyond(judged: Judged) -> bool:
    """True if an operator that rounds as the reference shows it can't be the reason, whatever its bound."""
    own = max(judged.reference.rms, judged.floor.null.rms, 1.0)
    return min(judged.candidate.rms, judged.difference.rms) > MIN_UNKNOWN_RATIO * own


def _shown(x: Any) -> str:
    """Return a value in words, without addresses."""
    return f"a {type(x).__name__}" if " at 0x" in repr(x) else repr(x)


def _nothing(trials: Sequence[Trial]) -> str | None:
    """A sentence if all outputs are empty, or no number on both sides, at every input."""
    compared = trials[0].parts
    if not any(part.values.names for part in compared):
        return "nothing was compared: the reference has no outputs, and no call writes anything"
    outputs = [t.outputs.values for t in trials]
    if not outputs[0].names or not all(_is_nothing(o, i) for o in outputs for i in range(len(o.names))):
        return None
    if all(t.numel() == 0 for o in outputs for t in o.reference):
        return "nothing was compared: all outputs are empty"
    return "nothing was compared: every element of the outputs is NaN on both sides"


def _is_nothing(values: Outputs, i: int) -> bool:
    return all(bool(number(side[i]).isnan().all()) for side in (values.reference, values.candidate))


def _empty_outputs(trials: Sequence[Trial]) -> list[str]:
    """Sentences on single outputs that had nothing to compare, at any input."""
    names = trials[0].outputs.values.names if trials else ()
    return [
        f"nothing was compared of {name}: it is empty, or NaN everywhere on both sides"
        for i, name in enumerate(names)
        if all(_is_nothing(t.outputs.values, i) for t in trials)
    ]


def _insensitive(one: Outputs, other: Outputs) -> bool:
    """True if other inputs of the same sizes move no output by a millionth."""
    if not one.floats or [t.shape for t in one.float64] != [t.shape for t in other.float64]:
        return False
    size = rms(distance(one.float64, [torch.zeros_like(t) for t in one.float64], one.floats))
    return rms(distance(one.float64, other.float64, one.floats)) <= 1e-6 * size


def _noise_floor(trials: Sequence[Trial]) -> NoiseFloor | None:
    part = next((t.outputs for t in trials if t.outputs.judged is not None), None)
    if part is None or part.judged is None or not part.values.floats:
        return None
    j, values = part.judged, part.values
    difference = rms(distance(values.candidate, values.reference, values.floats))
    return NoiseFloor(j.floor.size, difference, j.candidate.rms, j.reference.rms, j.floor.runs)


def _output_distances(trial: Trial) -> tuple[OutputDistance, ...]:
    told: list[OutputDistance] = []
    count = 0
    for part in trial.parts:
        o = part.values
        reference, candidate = (distance(side, o.float64, o.floats) for side in (o.reference, o.candidate))
        for j, i in enumerate(o.floats):
            floor = rms([run[j].nan_to_num(0, 0, 0) for run in part.judged.floor.deviations]) if part.judged else None
            shape = tuple(o.float64[i].shape)
            sizes = rms([reference[j]]), rms([candidate[j]])
            told.append(OutputDistance(count + i, shape, *sizes, floor, o.names[i]))
        count += len(o.names)
    return tuple(told)


def _input_distance(trial: Trial) -> InputDistance:
    o, judged = trial.outputs.values, trial.outputs.judged
    reference, candidate = (rms(distance(side, o.float64, o.floats)) for side in (o.reference, o.candidate))
    return InputDistance(reference, candidate, judged.candidate.rms if judged else None)


def _versions() -> dict[str, str]:
    found = {"foldproof": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    for package in ("executorch", "onnxruntime", "torchao"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    found["machine"] = f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return found
