"""Passes in torch.fx's pass infrastructure, by any author: `PassBase` objects and pass managers."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.auditing.log import Log, Rerun, find_program
from foldproof.auditing.taps.hooks import Hook
from foldproof.torch_internals import solve_order

DECOMPOSITIONS = Hook("torch.export", "ExportedProgram.run_decompositions", "the pass run_decompositions")
PASSES = Hook("torch.fx.passes.infra.pass_base", "PassBase.__call__", "each pass that is a PassBase object")
MANAGERS = Hook("torch.fx.passes.infra.pass_manager", "PassManager.__call__", "each function in a PassManager")
HOOKS = (DECOMPOSITIONS, PASSES, MANAGERS)


def find_graph(x: Any) -> fx.GraphModule | None:
    """Return the GraphModule of a program; None for other objects."""
    if isinstance(x, ExportedProgram):
        x = x.graph_module
    return x if isinstance(x, fx.GraphModule) else None


def observe(log: Log, name: str, function: Callable[..., Any], place: int = 0, whole: bool = True) -> Any:
    """Wrap ``function``, a pass, to record its calls.

    The positional argument ``place`` is the program. The pass returns a program or a PassResult, or None if it works in
    place.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        program = args[place] if len(args) > place else next(iter(kwargs.values()), None)
        if find_graph(program) is None:
            return function(*args, **kwargs)
        if log.leaves_out(name):
            return program

        def again(copy: Any) -> Any:
            return function(*args[:place], copy, *args[place + 1 :], **kwargs)

        with log.call(name, program, rerun=lambda: Rerun(again, log.copies.copy(program)), whole=whole) as made:
            result = function(*args, **kwargs)
            made.append(find_program(result, program))
        return result

    return call


@contextlib.contextmanager
def tap_passes(log: Log) -> Iterator[None]:
    """Record every `PassBase` call, every plain function that a `PassManager` calls, and decompositions."""
    with (
        DECOMPOSITIONS.patch(lambda original: observe(log, DECOMPOSITIONS.attribute, original)),
        PASSES.patch(lambda original: _wrap_pass(log, original)),
        MANAGERS.patch(lambda original: _wrap_manager(log, original)),
    ):
        yield


def _wrap_pass(log: Log, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, graph_module: Any, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        if not isinstance(graph_module, fx.GraphModule):
            return original(self, graph_module, *args, **kwargs)
        if log.leaves_out(name):
            return PassResult(graph_module, False)
        holder = getattr(self, "exported_program", None)
        holder = holder if isinstance(holder, ExportedProgram) else None
        with log.call(name, graph_module, _prepare_rerun(log, original, self, holder), holder) as made:
            result = original(self, graph_module, *args, **kwargs)
            made.append(find_program(result, graph_module))
        return result

    return call


def _prepare_rerun(
    log: Log, original: Callable[..., Any], one: Any, holder: ExportedProgram | None
) -> Callable[[], Rerun]:
    """Return a way to run a pass again that computes new parameters: it may hold the program that they belong to."""
    if holder is None:
        return lambda: Rerun(lambda program: original(one, program))
    (name,) = (name for name, value in vars(one).items() if value is holder)

    def again(program: ExportedProgram) -> Any:
        other = copy.copy(one)
        setattr(other, name, program)
        return original(other, program.graph_module)

    return lambda: Rerun(again, log.copies.copy(holder))


def _wrap_manager(log: Log, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(module, fx.GraphModule):
            return original(self, module, *args, **kwargs)
        passes = self.passes
        solve_order(self)
        self.passes = [observe_function(log, p) for p in self.passes]
        try:
            with log.call(type(self).__name__, module, whole=False) as made:
                result = original(self, module, *args, **kwargs)
                made.append(find_program(result, module))
        finally:
            self.passes = passes
        return result

    return call


def observe_function(log: Log, one: Any) -> Any:
    """Wrap a pass of a manager to record its calls, except for `PassBase` objects, whose calls are recorded anyway."""
    return one if isinstance(_unwrap(one), PassBase) else observe(log, name_pass(one), one)


def name_pass(one: Any) -> str:
    """Return the name of a pass: that of its function, also behind `functools.partial`, or of its class."""
    one = _unwrap(one)
    while isinstance(one, functools.partial):
        one = one.func
    return str(getattr(one, "__name__", type(one).__name__))


def _unwrap(one: Any) -> Any:
    """Return the pass that a pass manager wrapped in a function."""
    if not inspect.isfunction(one):
        return one
    inner = inspect.getclosurevars(one).nonlocals.get("fn", getattr(one, "__wrapped__", one))
    return inner if callable(inner) else one
