"""`torch.compile` with Inductor."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, clone_tensors, copy_buffers, set_buffers
from foldproof.auditing.definitions import Definitions
from foldproof.auditing.gradients import OPTIMIZER, TrainedCall
from foldproof.auditing.log import Log
from foldproof.auditing.taps.inductor import tap_inductor
from foldproof.compiler_catalog import INDUCTOR
from foldproof.errors import FoldproofError, brief
from foldproof.program.state import deepcopied
from foldproof.torch_internals import (
    compile_apart,
    compile_function_apart,
    inductor_setting,
    original_of,
    patched_inductor,
)


class Inductor:
    declared = INDUCTOR

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        step: TrainedCall | None = None,
    ) -> Compiled:
        """Compile ``model``, and record every step in ``log``; with a ``step``, for training."""
        own = deepcopied(model)
        # Dynamo itself reads some settings (freezing), so they are set globally, not passed to torch.compile.
        with configure(options), tap_inductor(log, own):
            compiled = compile_apart(own, "inductor", dynamic=False)
            if step is not None:
                call = step.run(compiled, own, functools.partial(_compile_update, log))
                call(*clone_tensors(step.inputs))
                return Compiled(call, "the compiled training step")
            compiled(*clone_tensors(args), **clone_tensors(kwargs))
        set_buffers(own, copy_buffers(model))
        what = "torch.compile" + " with fallback_random" * bool(options.get("fallback_random"))
        return Compiled(compiled, what, _make_part(options, log.without), original_of(compiled))

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        imports, settings = write_settings(options)
        return imports, [*settings, "got = torch.no_grad()(torch.compile(model))(*inputs)"]


def _compile_update(log: Log, update: Callable[[], Any]) -> Callable[[], Any]:
    """Compile an optimizer's step, whose passes are those of a part of their own."""
    compiled = compile_function_apart(update, "inductor")

    def call() -> Any:
        with log.of_part(OPTIMIZER):
            return compiled()

    return call


COMPILER = Inductor()


def _make_part(options: Options, without: frozenset[str]) -> Callable[[nn.Module], Callable[..., Any]]:
    """Return a function that compiles a module with the same settings and without the same passes."""

    def part(module: nn.Module) -> Callable[..., Any]:
        compiled = compile_apart(module, "inductor", dynamic=False)

        def call(*args: Any) -> Any:
            taps = tap_inductor(Log(without), module) if without else contextlib.nullcontext()
            with configure(options), taps:
                return compiled(*args)

        return call

    return part


def write_settings(options: Options) -> tuple[list[str], list[str]]:
    """Write Python: the lines of imports and definitions, and those that set the options."""
    own = Definitions()
    settings = [f"torch._inductor.config.{name} = {own.write_expression(value)}" for name, value in options.items()]
    return [*(["import torch._inductor.config"] if options else []), *own.lines], settings


@contextlib.contextmanager
def configure(options: Options) -> Iterator[None]:
    """Set options of Inductor.

    Raises:
        FoldproofError: an option is unknown, or its value has another type.
    """
    try:
        for name, value in options.items():
            _require_fitting(name, inductor_setting(name), value)
    except AttributeError as error:
        raise FoldproofError(f"torch._inductor.config has no such setting ({brief(error)})") from error
    with patched_inductor(**options):
        yield


def _require_fitting(name: str, now: Any, value: Any) -> None:
    """Check the type of a setting, as Inductor accepts any value, and takes any non-empty string as true.

    Raises:
        FoldproofError: ``value`` has a different type than the present value ``now``.
    """
    if isinstance(now, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(now, Mapping):
        fits, wanted = isinstance(value, Mapping), "a dict"
    else:
        fits, wanted = not (isinstance(now, int) and isinstance(value, str)), "a number"
    if not fits:
        raise FoldproofError(f"{name} is {wanted}, not {value!r}")
