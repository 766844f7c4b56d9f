"""Faults of a compiler: the property that a smaller model has to keep, and a reproduction has to show."""

from __future__ import annotations

import contextlib
import copy
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from foldproof.auditing.compilers import Compiler
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.explained import explains, run_rounding
from foldproof.auditing.gradients import TrainedCall
from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change, Log
from foldproof.auditing.specification import ModelSpec
from foldproof.digest import digest
from foldproof.generators import read_states
from foldproof.graph.interpreter import Interpreter
from foldproof.log import giving_up, log_caught
from foldproof.thresholds import MIN_REDUCED_DIFFERENCE
from foldproof.torch_internals import disable_current_modes, tree_leaves


class Fault(Protocol):
    """A fault of a compiler with these options."""

    compiler: Compiler
    options: Mapping[str, Any]

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if compiling the specified model shows the fault."""

    def look_closer(self) -> bool:
        """Count more as the fault, since no model has shown it; return False if there is no more."""

    def write_check(self) -> list[str]:
        """Return the lines of a reproduction after the compiled call, which fail as long as the fault is there."""


class WrongPass:
    """A pass that changes the numbers; with ``unfinite``, it makes elements nan or infinite, or finite."""

    def __init__(self, compiler: Compiler, options: Mapping[str, Any], culprit: str, *, unfinite: bool = False) -> None:
        self.compiler, self.options, self.culprit, self.unfinite = compiler, options, culprit, unfinite
        self._inputs_too = False

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if compiling the specified model shows the fault."""
        built = _build(spec)
        return built is not None and self.find_change(*built) is not None

    def look_closer(self) -> bool:
        """Compare writes to inputs, too; some passes go wrong in these only, and a reproduction can't compare them."""
        self._inputs_too = True
        return True

    def write_check(self) -> list[str]:
        """Compare the outputs."""
        nan = ", equal_nan=True" if self.unfinite else ""
        return [f"torch.testing.assert_close(got, model(*inputs){nan})"]

    def find_change(self, model: nn.Module, inputs: Sequence[Any]) -> Change | None:
        """Compile until the culprit makes a difference, and return that change; None if it makes none."""
        log, hit = Log(), list[Change]()

        def watch(change: Change) -> None:
            if change.name == self.culprit and change.fired and not hit and self._differs(change, inputs):
                hit.append(change)
                raise _Found

        log.watch = watch
        # A compiler may fail on its own wrong graph; the change, if any, was recorded before that.
        with _quiet(), contextlib.suppress(_Found), giving_up("compiling a smaller model"):
            self.compiler.compile(model, tuple(inputs), {}, self.options, log)
        return hit[0] if hit else None

    def _differs(self, change: Change, given: Sequence[Any]) -> bool:
        # The compiler may have modes enabled that make tensors fake.
        with disable_current_modes():
            inputs = find_inputs(change.before, given if change.inputs is None else change.inputs)
            if inputs is None:
                return False
            try:
                first, second = (_run_graph(s.module, inputs, self._inputs_too) for s in (change.before, change.after))
            except Exception as error:
                log_caught(error, "running the graphs of a smaller model")
                return False
            if [t.shape for t in first] != [t.shape for t in second]:
                return True
            return any(_become_unfinite(a, b) if self.unfinite else _move(a, b) for a, b in zip(first, second))


class Crash:
    """A failure of the compiler, known by the class of the exception and by the beginning of its message."""

    def __init__(self, compiler: Compiler, options: Mapping[str, Any], error: str) -> None:
        self.compiler, self.options, self.error = compiler, options, error

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if compiling the specified model fails in the same way."""
        built = _build(spec)
        if built is None:
            return False
        try:
            with _quiet():
                self.compiler.compile(built[0], built[1], {}, self.options, Log())
        except Exception as error:
            if describe_crash(error) == self.error:
                return True
            log_caught(error, "compiling a smaller model")
        return False

    def look_closer(self) -> bool:
        """Return False: there is nothing besides the failure."""
        return False

    def write_check(self) -> list[str]:
        """Check nothing: the compiled call fails."""
        return []


class WrongNumbers:
    """Outputs of the compiled model that differ from the model's own by more than rounding."""

    def __init__(self, compiler: Compiler, options: Mapping[str, Any]) -> None:
        self.compiler, self.options = compiler, options

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if the compiled model gives other numbers."""
        built = _build(spec)
        if built is None:
            return False
        model, inputs = built
        try:
            with _quiet():
                own = tree_leaves(copy.deepcopy(model)(*(x.clone() for x in inputs)))
                compiled = self.compiler.compile(model, inputs, {}, self.options, Log())
                other = tree_leaves(compiled.call(*(x.clone() for x in inputs)))
        except Exception as error:
            log_caught(error, "compiling a smaller model")
            return False
        return _differ_beyond_rounding(
            own, other, lambda: tree_leaves(copy.deepcopy(model)(*(x.clone() for x in inputs)))
        )

    def look_closer(self) -> bool:
        """Return False: there is nothing besides the outputs."""
        return False

    def write_check(self) -> list[str]:
        """Compare the outputs."""
        return ["torch.testing.assert_close(got, model(*inputs))"]


class WrongGradients:
    """Outputs or gradients of the compiled model that differ from the model's own by more than rounding.

    The loss is the model's one output, if that is one number, else the sum of its elements times fixed random numbers.
    ``trains`` is True for a model in training mode.
    """

    def __init__(self, compiler: Inductor, options: Mapping[str, Any], trains: bool) -> None:
        self.compiler: Compiler = compiler
        self._inductor, self.options, self.trains = compiler, options, trains

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if the compiled model gives other numbers."""
        built = _build(spec)
        if built is None:
            return False
        model, inputs = built[0].train(self.trains), [x.requires_grad_(x.is_floating_point()) for x in built[1]]
        try:
            with _quiet():
                step = TrainedCall(model, inputs, {})
                graph = step.trace(model)  # rounding can be moved in a graph, but not while autograd runs
                states = digest(read_states())
                own = step.run(model, model)(*step.inputs)
                if digest(read_states()) != states:  # other draws are no fault
                    return False
                compiled = self._inductor.compile(model, tuple(inputs), {}, self.options, Log(), step)
                other = compiled.call(*step.inputs)
        except Exception as error:
            log_caught(error, "compiling a smaller model with gradients")
            return False
        seen = slice(step.compared)
        return _differ_beyond_rounding(own[seen], other[seen], lambda: graph(*step.inputs)[seen])

    def look_closer(self) -> bool:
        """Return False: there is nothing besides outputs and gradients."""
        return False

    def write_check(self) -> list[str]:
        """Compile, and compare the outputs and the gradients."""
        return [
            "def step(model, call):",
            "    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]",
            "    out = call(*xs)",
            "    v = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)) if out.numel() > 1 else None",
            "    leaves = [x for x in (*xs, *model.parameters()) if x.requires_grad]",
            "    return out.detach(), *torch.autograd.grad(out, leaves, v, materialize_grads=True)",
            "a, b = copy.deepcopy(model), copy.deepcopy(model)",
            "torch.testing.assert_close(step(a, torch.compile(a)), step(b, b))",
        ]


class SharedMemory:
    """An output of the compiled model that shares memory as the model's own does not, so that a write shows elsewhere.

    The output is one tensor, of which the first element is written.
    """

    def __init__(self, compiler: Compiler, options: Mapping[str, Any]) -> None:
        self.compiler, self.options = compiler, options

    def is_shown_by(self, spec: ModelSpec) -> bool:
        """Return True if a write to the compiled model's output has other effects."""
        built = _build(spec)
        if built is None:
            return False
        model, inputs = built
        try:
            with _quiet():
                compiled = self.compiler.compile(model, inputs, {}, self.options, Log())
                own, other = (_write_first(call, inputs) for call in (copy.deepcopy(model), compiled.call))
        except Exception as error:
            log_caught(error, "compiling a smaller model")
            return False
        return own is not None and other is not None and not all(map(torch.equal, own, other))

    def look_closer(self) -> bool:
        """Return False: there is nothing besides the memory."""
        return False

    def write_check(self) -> list[str]:
        """Write to the output, and compare it and the inputs."""
        return [
            "kept = tuple(x.clone() for x in inputs)",
            "want = model(*kept).clone()",
            "for x in (got, want): x[(0,) * x.dim()] += 1",
            "torch.testing.assert_close((got, *inputs), (want, *kept))",
        ]


def _write_first(call: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor] | None:
    """Return which elements of the output and the inputs a write to the output changes; None for other outputs."""
    given = [x.clone() for x in inputs]
    out = call(*given)
    if not isinstance(out, Tensor) or not out.numel() or out.dtype is torch.bool:
        return None
    before = [x.clone() for x in (out, *given)]
    out[(0,) * out.dim()] += 1
    return [x != old for x, old in zip((out, *given), before)]


def describe_crash(error: BaseException) -> str:
    """Return the class of an exception and the beginning of its message, up to a name or a number of the model.

    Where the first line only tells who raised, the next one counts.
    """
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    told = next((line for line in lines if not line.endswith(":")), lines[0])
    return _OF_THE_MODEL.split(told)[0].strip()


_OF_THE_MODEL = re.compile(r"[0-9'\"`(<]")


class _Found(BaseException):
    """Ends a compilation from within. Not an Exception, because most compilers catch those and go on."""


def _build(spec: ModelSpec) -> tuple[nn.Module, tuple[Any, ...]] | None:
    """Build a model that runs by itself, with its inputs; None for others."""
    try:
        model, inputs = spec.build()
        with _quiet():
            model(*(x.clone() for x in inputs))
    except Exception as error:
        log_caught(error, "running a smaller model")
        return None
    return model, inputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Run without gradients, and without the graphs that fx prints when they raise."""
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        yield


def _differ_beyond_rounding(own: Sequence[Any], other: Sequence[Any], again: Callable[[], list[Any]]) -> bool:
    """Return True if results differ by more than the rounding of their computation, which ``again`` repeats, explains.

    Where that is not known, rounding may explain it.
    """
    moving = [i for i, (a, b) in enumerate(zip(own, other)) if _are_numbers(a, b) and _move(a.double(), b.double())]
    if not moving:
        return False
    try:
        with torch.no_grad():
            moved = list(run_rounding(again))
    except Exception as error:
        log_caught(error, "rounding a smaller model")
        return False
    return not all(explains(own[i].double(), other[i], [results[i].double() for results in moved]) for i in moving)


def _are_numbers(a: Any, b: Any) -> bool:
    """Return True for two tensors of one shape."""
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape


def _move(a: Tensor, b: Tensor) -> bool:
    """Return True if finite numbers move by more than a small part of the largest one."""
    return bool(
        a.numel() and a.isfinite().all() and float((a - b).abs().max()) > MIN_REDUCED_DIFFERENCE * float(a.abs().max())
    )


def _become_unfinite(a: Tensor, b: Tensor) -> bool:
    """Return True if elements are finite on one side only."""
    return bool((a.isfinite() != b.isfinite()).any())


def _run_graph(module: fx.GraphModule, inputs: Sequence[Any], inputs_too: bool) -> list[Tensor]:
    given = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
    with torch.no_grad():
        out = Interpreter(copy.deepcopy(module), None).run(*given)  # a copy, because a run may write to buffers
    seen = (*tree_leaves(out), *given) if inputs_too else tree_leaves(out)
    return [t.double() for t in seen if isinstance(t, Tensor)]
