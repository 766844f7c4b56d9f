"""`compare`: a program against numbers."""

from __future__ import annotations

import contextlib
import itertools
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from foldproof.claim import Claim, Held, Role, Scope, Why
from foldproof.comparison.attribution import Findings, find_sources, largest_source
from foldproof.comparison.candidate import Candidate, candidate_of
from foldproof.comparison.distance import truth_distance
from foldproof.comparison.graph import Graph, flattened
from foldproof.comparison.inputs import Inputs, others
from foldproof.comparison.judge import (
    Judged,
    Outputs,
    distance,
    flips,
    identical,
    judge,
    mismatch,
    number,
    rms,
)
from foldproof.comparison.layers import layers
from foldproof.comparison.reproduction import reproduce
from foldproof.comparison.result import CompareResult, InputDistance, Layer, NoiseFloor, OutputDistance
from foldproof.errors import FoldproofError, brief
from foldproof.graph.text import source_of
from foldproof.graph.view import view_graph
from foldproof.program import as_program, require_ordinary
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.proof.variation import named_inputs
from foldproof.thresholds import MAX_ROUNDING_RATIO, RUNS_AT_GIVEN_INPUTS, RUNS_AT_OTHER_INPUTS
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Counterexample, Difference, Kind, Rounding, Verdict
from foldproof.version import __version__

Progress = Callable[[int, int | None, str], None]

REDUCED = {"bf16": 2.0**-8, "tf32": 2.0**-11}
"""Unit roundoffs of what float32 operands of products are rounded to, where PyTorch is told to."""


def compare(
    reference: Any,
    candidate: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    trials: int = 24,
    seed: int = 0,
    locate: bool = True,
    progress: Progress | None = None,
) -> CompareResult:
    """Two programs give different numbers: is that rounding, or is one of them wrong?

    Args:
        reference: an nn.Module in the state that it is to run in, a GraphModule, or an ExportedProgram. It is exported
            to compute its float64 result and to see its operators.
        candidate: what gives the other numbers: any callable or module (compiled by `torch.compile`, say), an
            ExportedProgram, or saved outputs (tensors). A string is what ``foldproof compare --against`` takes: the
            name of a compiler backend (``"inductor"``, ``"aot_eager"``, ``"eager"``) to compile the reference with, or
            a file: ``.pt2``, ``.pte`` (run by ExecuTorch), ``.onnx`` (run by ONNX Runtime), ``.pt`` (saved outputs).
        inputs: positional arguments of both.
        kwargs: keyword arguments of both.
        dynamic_shapes: as in `torch.export.export`; the reference is then compared at other sizes, too.
        trials: how many inputs to try: the given ones, and others whose elements are drawn from theirs.
        seed: fixes the random draws. Everything else is deterministic, as far as both programs are.
        locate: whether to look for the operators that a difference comes from, too; compiled candidates are then
            compiled several times.
        progress: called with (done, total, what).

    Outputs are compared, not what is written to buffers and inputs; `foldproof.prove` looks at that.

    Neither program, nor its parameters or inputs, is changed, unless the candidate is a callable that changes things
    that foldproof can't see.

    Raises:
        FoldproofError: the reference can't be exported, something does not run, or a file can't be loaded.
    """
    return _Comparison(
        reference, candidate, as_inputs(inputs), dict(kwargs or {}), dynamic_shapes, trials, seed, locate, progress
    ).result()


@dataclass(frozen=True)
class _Trial:
    """One input, what came out, and what is thought of it (None: bit-identical)."""

    given: Inputs
    outputs: Outputs
    judged: Judged | None


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
        trials: int,
        seed: int,
        locate: bool,
        progress: Progress | None,
    ) -> None:
        self._start = time.perf_counter()
        self._tell = progress or (lambda done, total, what: None)
        self._args, self._kwargs, self._seed, self._trials = args, kwargs, seed, max(trials, 1)
        self._locate = locate
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                require_ordinary("an input", tensor)
        self._tell(0, None, "exporting")
        self._owner = as_program(reference)
        self._graph = Graph(reference, args, kwargs, dynamic_shapes)
        self._tell(0, None, "loading the candidate")
        self._candidate: Candidate = candidate_of(candidate, reference)
        self._operands = _reduced()
        self._notes: list[str] = []
        if self._operands:
            self._notes.append(
                "float32 products may round their operands here (fp32_precision of torch.backends): the floor allows it"
            )

    def result(self) -> CompareResult:
        with torch.random.fork_rng(devices=[]):
            return self._result()

    def _result(self) -> CompareResult:
        given: Inputs = (self._args, self._kwargs)
        first, again = (self._run_reference(given) for _ in range(2))
        self._tell(0, None, f"running {self._candidate.name}")
        one, two = (self._run_candidate(given) for _ in range(2))
        problem = mismatch(first, one)
        if problem is not None:
            return self._ended(self._refuted_by_shape(problem, given), first)
        call = self._graph.higher_order
        if call is not None:
            where = f" at {source_of(call)}" if source_of(call) else ""
            reason = f"{call.target}{where} runs a part of the program by itself, where rounding is not followed"
            return self._ended(Verdict(Kind.UNDECIDED, reason), first)
        trial = self._try(given, RUNS_AT_GIVEN_INPUTS, first, one, thoroughly=True)
        unstable = self._unstable(trial, first, again, one, two)
        if unstable is not None:
            return self._ended(Verdict(Kind.UNDECIDED, unstable), first)
        try:
            trials = self._others(trial)
        except _OtherShape as found_at:
            return self._ended(self._refuted_by_shape(found_at.problem, found_at.given), first)
        verdict = self._verdict(trials)
        found = Findings((), "")
        seen: tuple[Layer, ...] = ()
        if self._locate and not all(t.judged is None for t in trials):
            worst = _worst(trials)
            self._tell(0, None, "looking for where it comes from")
            large = worst.judged is not None and worst.judged.wrong is not None
            found = find_sources(
                self._graph, self._candidate, worst.given, worst.outputs, self._operands, large, self._tell
            )
            seen = layers(self._graph, found.values, worst.given, self._seed, self._operands)
        reproduction = None
        if verdict.kind is Kind.REFUTED and found.part is not None:
            at = largest_source(found.sources)
            verdict = replace(verdict, difference=Difference(at.node, at.operator, at.source))
            reproduction = reproduce(found.part, self._candidate)
        return self._build(verdict, trials, found, trials[0].outputs.reference, reproduction, seen)

    # ------------------------------------------------------------------ running

    def _run_reference(self, given: Inputs) -> list[Tensor]:
        try:
            with torch.no_grad():
                return flattened(self._owner.run_as_it_is(*given).outputs)
        except FoldproofError:
            raise
        except Exception as error:
            raise FoldproofError(f"the reference does not run on the inputs ({brief(error)})") from error

    def _run_candidate(self, given: Inputs) -> list[Tensor]:
        try:
            return [t.clone() for t in self._candidate.run(*given)]
        except FoldproofError:
            raise
        except Exception as error:
            raise FoldproofError(f"{self._candidate.name} does not run on the inputs ({brief(error)})") from error

    def _perturbed(self, given: Inputs, seed: int, amplitude: float) -> list[Tensor]:
        return self._graph.perturbed(*given, self._seed * 100_003 + seed, amplitude, self._operands)

    def _try(
        self, given: Inputs, runs: int, reference: list[Tensor], candidate: list[Tensor], thoroughly: bool = True
    ) -> _Trial:
        if len(self._graph.dtypes) == 0:
            self._graph.run(*given)
        outputs = Outputs(reference, candidate, self._graph.run_in_float64(*given))
        if identical(reference, candidate):
            return _Trial(given, outputs, None)
        return _Trial(given, outputs, judge(outputs, lambda k, a: self._perturbed(given, k, a), runs, thoroughly))

    def _others(self, first: _Trial) -> list[_Trial]:
        """The trial at the given inputs, and those at others of the same sizes, then at other sizes.

        Raises:
            _OtherShape: the candidate's outputs have another shape than the reference's.
        """
        made = [first]
        if self._candidate.given_only:
            self._notes.append("there are numbers for the given inputs only")
            return made
        drawn = others(self._args, self._kwargs, self._seed + 1, self._try_reference)
        for given in itertools.islice(drawn, 10 * self._trials):
            if len(made) >= self._trials:
                break
            self._tell(len(made), self._trials, "trying other inputs")
            if not self._add(made, given):
                break
        if len(made) == 1 and self._trials > 1:
            self._notes.append("no other inputs were tried: none can be drawn from the given ones")
        for given in sampled_inputs(self._graph.program, self._args, self._kwargs)[1:]:
            if not self._add(made, given):
                break
        return made

    def _try_reference(self, given: Inputs) -> list[Tensor] | None:
        try:
            return self._run_reference(given)
        except FoldproofError:
            return None

    def _add(self, made: list[_Trial], given: Inputs) -> bool:
        """One more trial, unless the reference refuses the input; False where the candidate does."""
        reference = self._try_reference(given)
        if reference is None:
            return True
        try:
            candidate = self._run_candidate(given)
        except FoldproofError as error:
            self._notes.append(f"other inputs were left out: {error}")
            return False
        problem = mismatch(reference, candidate)
        if problem is not None:
            raise _OtherShape(problem, given)
        doubtful = not any(t.judged is not None and t.judged.wrong for t in made)
        made.append(self._try(given, RUNS_AT_OTHER_INPUTS, reference, candidate, doubtful))
        return True

    # ------------------------------------------------------------------ verdicts

    def _unstable(
        self, trial: _Trial, first: list[Tensor], again: list[Tensor], one: list[Tensor], two: list[Tensor]
    ) -> str | None:
        """Whether a side that is run twice differs from itself by more than rounding."""
        if not identical(trial.outputs.float64, self._graph.run_in_float64(*trial.given)):
            return "the reference draws random numbers, so its outputs are no one thing to compare with"
        for name, a, b in (("the reference", first, again), ("the candidate", one, two)):
            if identical(a, b):
                continue
            if mismatch(a, b) is not None:
                return f"{name} gives outputs of other shapes when it is run again"
            outputs = Outputs(a, b, trial.outputs.float64)
            judged = judge(outputs, lambda k, s: self._perturbed(trial.given, k, s), RUNS_AT_GIVEN_INPUTS)
            itself = max(
                (float(d.abs().max()) for d in distance(a, b, outputs.floats) if d.numel()), default=float("nan")
            )
            if judged.difference.rms > MAX_ROUNDING_RATIO * max(judged.floor.null.rms, 1) or judged.wrong:
                return (
                    f"{name} is random, or changes by being run: it differs from itself by {itself:.3g} when it is run"
                    " again"
                )
            self._notes.append(
                f"{name} is not deterministic: it differs from itself by {itself:.3g}, which is rounding"
            )
        return None

    def _verdict(self, trials: Sequence[_Trial]) -> Verdict:
        count = len(trials)
        if all(t.judged is None for t in trials):
            return Verdict(
                Kind.ROUNDING,
                f"bit-identical on all {count} inputs" if count > 1 else "bit-identical on the given inputs",
                claim=self._claim(count),
                rounding=Rounding(0.0, self._floor_size(trials), count, 0.0),
            )
        worst = _worst(trials)
        judged = worst.judged
        assert judged is not None
        place = judged.place
        sigma = judged.candidate.worst
        rounding = None
        if place is not None and place.sigma:
            rounding = Rounding(sigma * place.sigma, place.sigma, count, sigma)
        unexplained = next((t for t in trials if t.judged is not None and t.judged.wrong), None)
        if unexplained is not None and unexplained.judged is not None:
            reason = unexplained.judged.wrong or ""
            if self._graph.unknown:
                names = ", ".join(sorted(self._graph.unknown))
                return Verdict(
                    Kind.UNDECIDED,
                    f"{reason}, but how far {names} may round is not known",
                    self._claim(count),
                    rounding=rounding,
                )
            doubt = self._doubt(unexplained)
            if doubt:
                return Verdict(Kind.UNDECIDED, doubt, self._claim(count), rounding=rounding)
            return Verdict(
                Kind.REFUTED,
                f"no rounding: {reason}",
                claim=self._claim(1, Scope.POINT),
                rounding=rounding,
                counterexample=self._counterexample(unexplained),
            )
        unsure = next((t.judged.unsure for t in trials if t.judged is not None and t.judged.unsure), None)
        if unsure is not None:
            return Verdict(Kind.UNDECIDED, unsure, self._claim(count), rounding=rounding)
        empty = self._vacuous(trials)
        if empty is not None:
            return Verdict(Kind.UNDECIDED, empty, self._claim(count), rounding=rounding)
        same = sum(t.judged is None for t in trials)
        told = f" ({same} of {count} inputs bit-identical)" if same else ""
        return Verdict(
            Kind.ROUNDING,
            "the difference is within what rounding explains: neither side is wrong" + told,
            claim=self._claim(count),
            rounding=rounding,
        )

    def _doubt(self, trial: _Trial) -> str | None:
        """Whether the float64 result speaks for the candidate, or not of this program."""
        judged = trial.judged
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

    def _vacuous(self, trials: Sequence[_Trial]) -> str | None:
        """Whether rounding explains anything at all here, so that agreeing says nothing."""
        judged = next(t for t in trials if t.judged is not None)
        assert judged.judged is not None
        outputs = judged.outputs
        size = rms([number(outputs.float64[i]).nan_to_num(0, 0, 0) for i in outputs.floats])
        if size and judged.judged.floor.size > size / 2:
            return (
                f"rounding alone moves the outputs by {judged.judged.floor.size:.3g}, on outputs of {size:.3g} (root"
                " mean squares), so that agreement says nothing; compare at inputs or parameters that matter"
            )
        return None

    def _claim(self, points: int, scope: Scope = Scope.TRIED) -> Claim:
        varied = [name for name, x in named_inputs(self._args, self._kwargs) if isinstance(x, Tensor)]
        held = [Held(name, Role.PARAMETER, Why.CHOSEN) for name in self._owner.leaves]
        return Claim(scope, tuple(varied if points > 1 else ()), held=tuple(held), points=points)

    def _counterexample(self, trial: _Trial) -> Counterexample:
        judged = trial.judged
        assert judged is not None
        inputs = tuple(tree_leaves(trial.given))
        described = "the given inputs" if trial.given[0] is self._args else "inputs drawn from the given ones"
        p = judged.place
        if p is None:
            return Counterexample(described, 0, (), 0.0, 0.0, 0.0, 0.0, inputs)
        return Counterexample(
            described, p.output, p.index, p.reference, p.candidate, abs(p.candidate - p.reference), p.sigma, inputs
        )

    def _refuted_by_shape(self, problem: str, given: Inputs) -> Verdict:
        described = "the given inputs" if given[0] is self._args else "inputs drawn from the given ones"
        shown = Counterexample(f"{described}: {problem}", 0, (), 0.0, 0.0, 0.0, 0.0, tuple(tree_leaves(given)))
        return Verdict(Kind.REFUTED, problem, claim=self._claim(1, Scope.POINT), counterexample=shown)

    # ------------------------------------------------------------------ the result

    def _floor_size(self, trials: Sequence[_Trial]) -> float:
        return next((t.judged.floor.size for t in trials if t.judged is not None), 0.0)

    def _ended(self, verdict: Verdict, reference: list[Tensor]) -> CompareResult:
        return self._build(verdict, (), Findings((), ""), reference, None)

    def _build(
        self,
        verdict: Verdict,
        trials: Sequence[_Trial],
        found: Findings,
        reference: Sequence[Tensor],
        reproduction: str | None,
        seen: tuple[Layer, ...] = (),
    ) -> CompareResult:
        notes = [*self._notes, *self._candidate.notes()]
        for t in trials:
            if t.judged is not None:
                notes += t.judged.notes
        if trials and trials[0].judged is not None:
            notes += flips(trials[0].outputs, trials[0].judged.floor)
        notes += _types(trials)
        notes += self._exactness(trials)
        scale = max((float(number(t).abs().max()) for t in reference if t.numel()), default=0.0)
        largest = 0.0
        for t in trials:
            parts = distance(t.outputs.candidate, t.outputs.reference, range(len(t.outputs.reference)))
            largest = max([largest, *(float(d.abs().max()) for d in parts if d.numel())])
        seconds = time.perf_counter() - self._start
        return CompareResult(
            verdict=replace(verdict, notes=tuple(dict.fromkeys(notes)), seconds=seconds),
            truth_distance=truth_distance([t.outputs for t in trials]) if trials else None,
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
            identical=bool(trials) and all(t.judged is None for t in trials),
            largest=largest,
            scale=scale if math.isfinite(scale) else 0.0,
            seconds=seconds,
            versions=_versions(),
        )

    def _exactness(self, trials: Sequence[_Trial]) -> list[str]:
        """What weakens the comparison, in words."""
        if not trials:
            return []
        told = []
        outputs = trials[0].outputs
        if any(t.dtype in (torch.float64, torch.complex128) for t in outputs.reference):
            told.append("the reference computes in float64 itself, so its distance to the float64 result says nothing")
        if len(trials) > 1 and _insensitive(outputs, trials[1].outputs):
            told.append("the outputs hardly depend on the inputs, so what goes wrong before may not be seen in them")
        if not identical(self._graph.run(*trials[0].given), outputs.reference):
            told.append(
                "the exported graph, of which the float64 result is told, rounds in other places than the reference"
            )
        return told


def _insensitive(one: Outputs, other: Outputs) -> bool:
    """Whether other inputs of the same sizes move no output by a millionth."""
    if not one.floats or mismatch(one.float64, other.float64) is not None:
        return False
    size = rms(distance(one.float64, [torch.zeros_like(t) for t in one.float64], one.floats))
    return rms(distance(one.float64, other.float64, one.floats)) <= 1e-6 * size


def _worst(trials: Sequence[_Trial]) -> _Trial:
    def key(t: _Trial) -> tuple[bool, float]:
        return (t.judged is not None and bool(t.judged.wrong), -1.0 if t.judged is None else t.judged.ratio)

    return max(trials, key=key)


def _noise_floor(trials: Sequence[_Trial]) -> NoiseFloor | None:
    trial = next((t for t in trials if t.judged is not None), None)
    if trial is None or trial.judged is None:
        return None
    j, outputs = trial.judged, trial.outputs
    difference = rms(distance(outputs.candidate, outputs.reference, outputs.floats))
    return NoiseFloor(j.floor.size, difference, j.candidate.rms, j.reference.rms, j.floor.runs)


def _output_distances(trial: _Trial) -> tuple[OutputDistance, ...]:
    o = trial.outputs
    reference, candidate = (distance(side, o.float64, o.floats) for side in (o.reference, o.candidate))
    told = []
    for j, i in enumerate(o.floats):
        floor = rms([run[j].nan_to_num(0, 0, 0) for run in trial.judged.floor.deviations]) if trial.judged else None
        told.append(OutputDistance(i, tuple(o.float64[i].shape), rms([reference[j]]), rms([candidate[j]]), floor))
    return tuple(told)


def _input_distance(trial: _Trial) -> InputDistance:
    o = trial.outputs
    reference, candidate = (rms(distance(side, o.float64, o.floats)) for side in (o.reference, o.candidate))
    return InputDistance(reference, candidate, trial.judged.candidate.rms if trial.judged else None)


def _types(trials: Sequence[_Trial]) -> list[str]:
    if not trials:
        return []
    outputs = trials[0].outputs
    return [
        f"output {i} is {a.dtype} from the reference and {b.dtype} from the candidate".replace("torch.", "")
        for i, (a, b) in enumerate(zip(outputs.reference, outputs.candidate))
        if a.dtype != b.dtype
    ]


def _reduced() -> float:
    """To what float32 operands of products may be rounded here: a unit roundoff, 0 for nothing."""
    backends: Any = torch.backends
    places = (backends, backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv)
    return max(REDUCED.get(place.fp32_precision, 0.0) for place in places)


def _versions() -> dict[str, str]:
    found = {"foldproof": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    for package in ("executorch", "onnxruntime", "torchao"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    found["machine"] = f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return found
