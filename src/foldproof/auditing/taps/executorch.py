"""ExecuTorch: every pass from an exported program to the .pte file, including decompositions and partitioning."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from torch.export import ExportedProgram

from foldproof.auditing.log import Log, find_program
from foldproof.auditing.taps.fx_passes import observe, observe_function
from foldproof.auditing.taps.hooks import Hook
from foldproof.errors import MissingExtra

PROGRAM = "executorch.exir.program._program"

STEPS = tuple(
    Hook(PROGRAM, name, f"the pass {name}")
    for name in (
        "remove_unused_parameters_pass",
        "lift_constant_tensor_pass",
        "quant_fusion_and_const_prop_pass",
        "weights_to_outputs_pass",
        "insert_write_back_for_buffers_pass",
        "unsafe_remove_auto_functionalized_pass",
        "external_constants_pass",
        "reinplace_pass",
    )
)
"""Steps that are functions, and not passes, in the module that calls them."""

MANAGERS = Hook("executorch.exir.pass_manager", "ExportedProgramPassManager.__call__", "each function in a manager")
COPIES = Hook("executorch.exir.pass_manager", "copy", "the program whose parameters a pass of a manager is given")
PASSES = Hook("executorch.exir.pass_base", "ExportedProgramPassBase.__call__", "each pass on an exported program")
PARTITION = Hook(PROGRAM, "EdgeProgramManager.to_backend", "the step partition")
PREPROCESS = Hook(
    "executorch.backends.xnnpack.xnnpack_preprocess", "XnnpackBackend.preprocess", "the passes of XNNPACK's own"
)
HOOKS = (*STEPS, MANAGERS, COPIES, PASSES, PARTITION, PREPROCESS)


def import_exir_program() -> ModuleType:
    """Import ExecuTorch's module of programs.

    Raises:
        MissingExtra: executorch is not installed.
    """
    try:
        return importlib.import_module(PROGRAM)
    except ModuleNotFoundError:
        raise MissingExtra("executorch", "executorch") from None


@contextlib.contextmanager
def tap_executorch(log: Log) -> Iterator[None]:
    """Record every step from an exported program to the one in a .pte file."""
    import_exir_program()
    from executorch.exir.pass_base import ExportedProgramPassResult

    copies = SimpleNamespace(copy=functools.partial(_copy_owned, log), deepcopy=copy.deepcopy)
    with contextlib.ExitStack() as stack:
        for step in STEPS:
            stack.enter_context(step.patch(functools.partial(_observe_step, log, step.attribute)))
        stack.enter_context(MANAGERS.patch(lambda original: _wrap_manager(log, original)))
        stack.enter_context(COPIES.patch(lambda _: copies))
        stack.enter_context(PASSES.patch(lambda original: _wrap_program_pass(log, original, ExportedProgramPassResult)))
        stack.enter_context(PARTITION.patch(lambda original: _wrap_partition(log, original)))
        stack.enter_context(PREPROCESS.patch(lambda original: staticmethod(_separate(log, original))))
        yield


def _observe_step(log: Log, name: str, function: Any) -> Any:
    return observe(log, name, _wrap_dispatch(function))


def _wrap_dispatch(function: Any) -> Callable[..., Any]:
    """Wrap a `functools.singledispatch` function as a plain one, whose calls dispatch as before."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _copy_owned(log: Log, x: Any) -> Any:
    """Copy a program, and make the copy the owner of later graphs: the pass manager updates the copy's signature."""
    made = copy.copy(x)
    if isinstance(made, ExportedProgram):
        log.owners.append(made)
    return made


def _wrap_manager(log: Log, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, program: ExportedProgram, *args: Any, **kwargs: Any) -> Any:
        passes, owners = self.passes, len(log.owners)
        self.passes = [observe_function(log, p) for p in passes]
        try:
            with log.call(type(self).__name__, program, whole=False) as made:
                result = original(self, program, *args, **kwargs)
                made.append(find_program(result, program))
        finally:
            self.passes = passes
            del log.owners[owners:]
        return result

    return call


def _wrap_program_pass(
    log: Log, original: Callable[..., Any], unchanged: Callable[[Any, bool], Any]
) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, program: ExportedProgram, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        if log.leaves_out(name):
            return unchanged(program, False)
        with log.call(name, program) as made:
            result = original(self, program, *args, **kwargs)
            made.append(find_program(result, program))
        return result

    return call


def _wrap_partition(log: Log, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.methods != {"forward"}:
            return original(self, *args, **kwargs)
        with log.call("partition", self.exported_program(), whole=False) as made:
            result = original(self, *args, **kwargs)
            made.append(result.exported_program())
        return result

    return call


def _separate(log: Log, preprocess: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a backend's preprocessing, whose own passes run on a separate part of the program."""

    @functools.wraps(preprocess)
    def call(program: ExportedProgram, *args: Any, **kwargs: Any) -> Any:
        with log.separate("XnnpackBackend.preprocess"), log.owned(program):
            return preprocess(program, *args, **kwargs)

    return call
