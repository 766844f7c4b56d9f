"""`audit`: run a compiler on a model, observe every graph pass, and prove each one."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.compilers.compiler import Compiled, Compiler, clone_tensors, list_versions
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.fault import describe_crash
from foldproof.auditing.gradients import MakeOptimizer, TrainedCall
from foldproof.auditing.kernels import WrongKernel, find_wrong_kernel
from foldproof.auditing.log import Log
from foldproof.auditing.loops import LOOP_STEPS
from foldproof.auditing.result import Audit
from foldproof.auditing.stages import BACKENDS, EMULATED, Stage, compare_stages, find_wrong, is_half, stage_of
from foldproof.auditing.step import Step
from foldproof.compiler_catalog import AOTINDUCTOR, INDUCTOR
from foldproof.digest import digest
from foldproof.errors import FoldproofError, brief
from foldproof.generators import kept_generators, read_states
from foldproof.log import giving_up, log_caught
from foldproof.program.gradients import UNAUDITED_GRADIENTS, UNSEEN_GRADIENTS, tell_unseen_gradients
from foldproof.program.loading import Loaded, check_runs
from foldproof.program.state import deepcopied, quiet_copies
from foldproof.proof.shapes import as_inputs
from foldproof.thresholds import COMPARED_INPUTS
from foldproof.torch_internals import compile_apart, tree_leaves
from foldproof.verdict import Kind

if TYPE_CHECKING:
    from foldproof.comparison import CompareResult


SAME_DRAWS = {"fallback_random": True}
"""Settings of Inductor with which it draws the random numbers that the model draws, and by design others without."""

Progress = Callable[[int, int | None, str], None]


def audit(
    model: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    compiler: str = "inductor",
    options: Mapping[str, Any] | None = None,
    disable: str | Iterable[str] = (),
    training: bool = False,
    optimizer: MakeOptimizer | None = None,
    locate: bool = True,
    progress: Progress | None = None,
) -> Audit:
    """Find the passes of a compiler that change the meaning of ``model``, if there are any.

    Runs the compiler as a user would, records the graph before and after every pass, proves each step, and compares the
    calls of the compiled model with those of the model, in everything that they change (see `foldproof.compare`). The
    taps do not change the compiler's result.

    Args:
        model: an nn.Module in the mode that it is to run in, or an ExportedProgram.
        inputs: example positional arguments of the model.
        kwargs: example keyword arguments.
        compiler: the name of a compiler, from the table of docs/howto/audit.md or ``foldproof audit --help``.
        options: settings of the compiler; for inductor those of torch._inductor.config. A model that draws random
            numbers is compiled with ``fallback_random=True`` unless it is given.
        disable: names of passes (or one name) to leave out, as in the names of the steps.
        training: True to compile with gradients (inductor only): the passes of the joint graph, the partitioner, and
            those of the forward and the backward graph are steps, and outputs, gradients and buffers are compared. The
            loss is the model's output, if that is one number; else the sum of all outputs times fixed random numbers.
            Proofs of the steps are for any loss.
        optimizer: a function from the list of parameters that require gradients to their optimizer, with ``training``:
            its step is compiled and audited, too, and the updated parameters and its state are compared.
        locate: True to look for the operators that cause a difference of numbers; with inductor, parts of the model are
            then compiled several times.
        progress: called with (done, total, what).

    Raises:
        FoldproofError: the compiler, an option or a pass is unknown, the model can't be run on the inputs, or the
            compiler fails before a pass has changed a graph. Where it fails later, the steps until then are judged.
        MissingExtra: the compiler is not installed.
    """
    start = time.perf_counter()
    report = progress or (lambda done, total, what: None)
    chosen = find_compiler(compiler)
    args, named = as_inputs(inputs), dict(kwargs or {})
    if isinstance(model, ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        raise FoldproofError(f"audit takes an nn.Module or an ExportedProgram, not a {type(model).__name__}")
    if not isinstance(options, Mapping | None):
        raise FoldproofError(f"options are a mapping from names to values, not a {type(options).__name__}")
    names = [disable] if isinstance(disable, str) else disable
    log = Log(part for name in names for part in name.split(", "))  # patterns that match together share a row
    subject = _Subject.prepare(chosen, model, args, named, training, optimizer)
    options = dict(options or {})
    if subject.draws and chosen.declared in (INDUCTOR, AOTINDUCTOR):
        options = {**SAME_DRAWS, **options}
    report(0, None, f"compiling with {compiler}")
    compiled, crash, failure = None, "", ""
    try:
        compiled = subject.compile(options, log)
    except FoldproofError:
        raise
    except Exception as error:
        crash, failure = _tell_crash(error, compiler, log), describe_crash(error)
        if not any(change.fired for change in log.changes):
            raise FoldproofError(crash) from error
        log_caught(error, f"compiling with {compiler}")
    else:
        _require_left_out(log, compiler)
    compile_seconds = time.perf_counter() - start
    steps = [Step(change, tree_leaves((args, named))) for change in log.changes]
    fired = [step for step in steps if step.fired]
    for i, step in enumerate(fired):
        report(i, len(fired) + 1, f"proving {step.name}")
        _ = step.verdict
    report(len(fired), len(fired) + 1, "comparing numbers")
    whole, uncompared = (None, crash) if compiled is None else subject.compare(compiled, locate)
    told = subject.remarks
    if whole is not None and told:
        whole = replace(whole, verdict=replace(whole.verdict, notes=(*whole.verdict.notes, *told)))
    lowering, kernel, stages = "", None, list[Stage]()
    wrong = compiled is not None and whole is not None and whole.verdict.kind is Kind.REFUTED
    if wrong and whole is not None and chosen.declared is INDUCTOR:
        report(len(fired) + 1, None, "comparing stages")
        stages = compare_stages(subject.compare_backend, whole)
        if not training and is_half((*model.state_dict().values(), *tree_leaves((args, named)))):
            stages.append(_compare_emulated(subject, options))
    above = find_wrong(stages) in BACKENDS
    refuted = any(s.verdict.kind is Kind.REFUTED for s in fired if s.name not in LOOP_STEPS)
    if wrong and compiled is not None and not above and not refuted:
        report(len(fired) + 1, None, "running kernels beside their loops")
        kernel = _find_wrong_kernel(log, compiled, subject)
        report(len(fired) + 1, None, "leaving out lowerings")
        lowering = "" if kernel is not None else _find_wrong_lowering(subject, options, log)
    return Audit(
        compiler,
        options,
        steps,
        whole,
        compiled.what if compiled is not None else "the compiled model",
        compile_seconds,
        time.perf_counter() - start,
        list_versions(chosen),
        tuple(sorted(log.without)),
        model,
        args,
        named,
        uncompared,
        frozenset(log.optional),
        lowering,
        crash,
        failure,
        tuple(stages),
        kernel,
        training,
    )


def _tell_crash(error: Exception, compiler: str, log: Log) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error  # pass managers don't tell the reason
    why = brief(error) if cause is error else f"{brief(error)}, because of {brief(cause)}"
    failed = log.failed.split(", ")
    without = f"; --disable {shlex.quote(log.failed)} leaves out the pass that failed"
    without *= log.optional.issuperset(failed)
    return f"{compiler} can't compile the model ({why}){without}"


def _require_left_out(log: Log, compiler: str) -> None:
    unknown = sorted(log.without - log.optional)
    if unknown:
        others = ", ".join(sorted(log.optional)) or "none"
        raise FoldproofError(f"{compiler} ran no pass {unknown[0]!r} that can be left out; those that can: {others}")


@dataclass(frozen=True)
class _Subject:
    """A model and the inputs of its call; with a ``step``, the call's backward, too."""

    compiler: Compiler
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    draws: bool
    """True if a call draws random numbers."""
    step: TrainedCall | None

    @staticmethod
    def prepare(
        compiler: Compiler,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        training: bool,
        optimizer: MakeOptimizer | None,
    ) -> _Subject:
        """Run the model once: some compilers never do, and would be blamed for inputs that do not fit.

        Raises:
            FoldproofError: the model can't be run on the inputs; or with ``training``, it has no gradients, or the
                compiler compiles none.
        """
        if training and not isinstance(compiler, Inductor):
            raise FoldproofError(f"{compiler.declared.name} compiles no gradients; training is audited with inductor")
        if optimizer is not None and not training:
            raise FoldproofError("an optimizer's step is a part of training; give training=True, or --training, too")
        with torch.no_grad(), quiet_copies(), kept_generators():
            own = Loaded("the model", deepcopied(model), *clone_tensors((args, kwargs)))
            first = digest(read_states())
            check_runs(own, own)
            draws = first != digest(read_states())
            step = TrainedCall(model, args, kwargs, optimizer) if training else None
        return _Subject(compiler, model, args, kwargs, draws, step)

    def compile(self, options: Mapping[str, Any], log: Log) -> Compiled:
        """Compile the model as a user would."""
        with torch.no_grad(), quiet_copies():
            if isinstance(self.compiler, Inductor):
                return self.compiler.compile(self.model, self.args, self.kwargs, options, log, self.step)
            return self.compiler.compile(self.model, self.args, self.kwargs, options, log)

    @property
    def remarks(self) -> list[str]:
        """Sentences on what the comparison is of, and on what was not looked at."""
        if self.step is not None:
            return self.step.remarks
        note = UNAUDITED_GRADIENTS if isinstance(self.compiler, Inductor) else UNSEEN_GRADIENTS
        return tell_unseen_gradients(self.model, (self.args, self.kwargs), note)

    def call(self, compiled: Compiled) -> Any:
        """Call the compiled model on copies of the inputs."""
        given = (self.args, self.kwargs) if self.step is None else (self.step.inputs, {})
        args, kwargs = clone_tensors(given)
        return compiled.call(*args, **kwargs)

    def compare_backend(self, backend: str) -> tuple[CompareResult | None, str]:
        """Return the comparison of what another backend of `torch.compile` makes, or None and the reason."""
        if self.step is None:
            return self._compared(self.model, backend, self.args, self.kwargs, locate=False)
        own = deepcopied(self.model)
        return self.compare(Compiled(self.step.run(compile_apart(own, backend, dynamic=False), own), backend), False)

    def compare(self, compiled: Compiled, locate: bool) -> tuple[CompareResult | None, str]:
        """Return the comparison of numbers, or None and the reason; the verdicts on passes don't depend on it."""
        from foldproof.comparison.candidate import Candidate, caller

        candidate = Candidate(
            compiled.what,
            caller(compiled.call),
            compiled.holder,
            "" if compiled.holder is not None else f"{compiled.what} shows outputs only",
            copies=compiled.holder is None,
            compile=compiled.part,
            program=compiled.call if isinstance(compiled.call, nn.Module) and compiled.part is None else None,
            restart=compiled.restart,
        )
        if self.step is None:
            return self._compared(self.model, candidate, self.args, self.kwargs, locate)
        try:
            reference = self.step.trace(self.model)
        except FoldproofError as error:
            log_caught(error, "recording a training step")
            return None, str(error)
        found, why = self._compared(reference, candidate, self.step.inputs, {}, locate)
        return (None if found is None else self.step.name(found)), why

    def _compared(
        self, reference: Any, candidate: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], locate: bool
    ) -> tuple[CompareResult | None, str]:
        from foldproof.comparison import compare
        from foldproof.comparison.inputs import count_trials

        try:
            with torch.no_grad():
                trials = count_trials(args, kwargs, COMPARED_INPUTS)
                return compare(reference, candidate, args, kwargs, trials=trials, locate=locate), ""
        except (FoldproofError, RuntimeError) as error:
            log_caught(error, "comparing end to end")
            return None, str(error) if isinstance(error, FoldproofError) else brief(error)


def _find_wrong_kernel(log: Log, compiled: Compiled, subject: _Subject) -> WrongKernel | None:
    """Return the first generated kernel that computes other numbers than its loops; None if there is none."""
    with giving_up("running kernels beside their loops"), torch.no_grad():
        return find_wrong_kernel(log.generated, lambda: subject.call(compiled))
    return None


def _find_wrong_lowering(subject: _Subject, options: Mapping[str, Any], log: Log) -> str:
    """Return the name of the lowering without which the numbers are right; empty if there is none."""
    for name in dict.fromkeys(log.lowerings):
        try:
            compiled = subject.compile(options, Log({*log.without, name}))
        except Exception as error:
            log_caught(error, f"compiling without {name}")
            continue  # compilation needs it
        whole, _ = subject.compare(compiled, locate=False)
        if whole is not None and whole.verdict.kind is Kind.ROUNDING:
            return name
    return ""


def _compare_emulated(subject: _Subject, options: Mapping[str, Any]) -> Stage:
    """Compare a compilation that rounds where the model does."""
    name = f"inductor with {', '.join(EMULATED)}"
    try:
        compiled = subject.compile({**options, **EMULATED}, Log())
    except Exception as error:
        log_caught(error, f"compiling {name}")
        return Stage(name, failure=brief(error))
    return stage_of(name, *subject.compare(compiled, locate=False))
