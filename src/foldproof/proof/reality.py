"""The check that runs on shadows are runs of the real program: a comparison of values with the owner's call."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.operators import is_random, is_uninitialized, is_view, list_written
from foldproof.program import Outcome, Program
from foldproof.proof.attempt import Attempt
from foldproof.proof.obligation import ProofObligation, tied
from foldproof.rounding.float64 import Float64
from foldproof.shadow import Draws, GeneratorMoved, Undecided, is_number, seeded
from foldproof.thresholds import MIN_COUNTEREXAMPLE_RATIO, SPREAD_RUNS
from foldproof.torch_internals import DispatchMode, tree_leaves


def unreal(obligation: ProofObligation, found: Attempt, find_zeros: Callable[[], Collection[int]]) -> str | None:
    """Return the reason why the runs on shadows are not runs of the real programs; None if they are.

    A module may act differently on ordinary tensors than on shadows (hooks on a graph, compiled parts, checks of a
    tensor's class, Python state). A proof would then hold for a program that nobody runs. ``find_zeros`` gives the
    places of outputs that are 0 for all inputs, but for rounding.
    """
    for (which, program), values in zip(_own_programs(obligation), found.values):
        what = _differs(program, obligation, values, find_zeros)
        if what:
            return f"the {which} program {what}"
    return None


def unrepeated(obligation: ProofObligation, both: bool = False) -> str | None:
    """Return the reason why the first program, or one of ``both``, does not repeat its outputs; None if it does.

    It is random, reads Python state outside of modules that changes from run to run (a list in a closure, a clock), or
    returns memory that nobody wrote. Draws that are functions of the generator's state repeat from an equal state; if
    the first program draws at all, the second one has to draw no other numbers, either, since nothing says what it
    promises of them.
    """
    for which, program in _own_programs(obligation):
        if which == "second" and not both:
            return None
        changes = f"the {which} program is random, or changes by being run"
        try:
            runs = [_run_from_one_state(program, obligation, mode) for mode in (None, None, _Filled())]
        except GeneratorMoved:
            return changes
        except Undecided as reason:
            if "which is random" in str(reason):
                return changes
            log_caught(reason, "running a program twice")
            continue
        except Exception as error:
            log_caught(error, "running a program twice")
            continue
        (once, draws), (again, _), (filled, _) = runs
        if _first_mismatch(once, again) is not None:
            return changes
        if _first_mismatch(once, filled) is not None:
            return f"the {which} program returns memory that nobody wrote"
        both = both or draws > 0
    return None


def _run_from_one_state(
    program: Program, obligation: ProofObligation, mode: DispatchMode | None
) -> tuple[Sequence[Any], int]:
    """Return the outputs of the owner's call, and the number of draws in it.

    Raises:
        Undecided: a random number is no function of the generator's state.
    """
    with torch.set_grad_enabled(obligation.gradients), mode or contextlib.nullcontext(), Draws(None) as draws:
        outcome = program.run_as_it_is(obligation.args, obligation.kwargs)
    return outcome.outputs, draws.count


class _Filled(DispatchMode):
    """Fills new memory with numbers that it holds by chance alone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if is_uninitialized(func) and isinstance(made, Tensor) and made.device.type != "meta":
            made.fill_(True if made.dtype is torch.bool else 113)
        return made


def _own_programs(obligation: ProofObligation) -> tuple[tuple[str, Program], tuple[str, Program]]:
    own = tied(obligation.before.leaves, lambda name, leaf: leaf.tensor.detach())
    return ("first", obligation.before), ("second", obligation.other(own).after)


def _differs(
    program: Program,
    obligation: ProofObligation,
    values: Sequence[Any],
    find_zeros: Callable[[], Collection[int]],
) -> str | None:
    try:
        real = _run_as_it_is(program, obligation)
    except FoldproofError as error:
        return f"cannot be run on its own tensors: {error}"
    except Exception as error:
        log_caught(error, "running a program on its own tensors")
        return f"fails on its own tensors: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    at = list(_mismatches(real.outputs, values))
    zeros = find_zeros() if at else ()
    if all(i in zeros and _is_rounding(program, obligation, real.outputs, values, i) for i in at):
        return None
    return f"returns another output {at[0]} on its own tensors than on shadows, so nothing is proved about it"


def _is_rounding(
    program: Program, obligation: ProofObligation, real: Sequence[Any], values: Sequence[Any], at: int
) -> bool:
    """Return True if an output that is 0 on residues, as some gradients are, is 0 but for roundings.

    These move it as far, and in float64 it is nearer to 0. Otherwise rounding may hide another function.
    """
    if at >= min(len(real), len(values)) or not _is_float(real[at]) or not _is_float(values[at]):
        return False
    wide = _run_as_it_is(program, obligation, Float64()).outputs
    distance = _distance(real[at], values[at])
    if not _is_tiny(distance, real, real[at].dtype) or not _is_tiny(_size(wide[at]), wide, wide[at].dtype):
        return False
    runs = [_run_as_it_is(program, obligation, _Nudged(seed)).outputs for seed in range(SPREAD_RUNS)]
    return distance <= MIN_COUNTEREXAMPLE_RATIO * max(_distance(real[at], outputs[at]) for outputs in runs)


def _is_tiny(distance: float, outputs: Sequence[Any], dtype: torch.dtype) -> bool:
    """Return True if ``distance`` is within the rounding of the largest output."""
    return distance <= MANY_ULPS * torch.finfo(dtype).eps * max(_largest(x) for x in outputs if _is_float(x))


class _Nudged(DispatchMode):
    """Moves every result by up to a rounding of its dtype. The program runs on its own tensors still."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not (is_view(func) or list_written(func) or is_random(func)):
            for x in tree_leaves(made):
                if _is_float(x) and not any(x is given for given in args):
                    noise = torch.rand(x.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
                    x.mul_((1 + noise * torch.finfo(x.dtype).eps).to(x.device))
        return made


def _run_as_it_is(program: Program, obligation: ProofObligation, mode: DispatchMode | None = None) -> Outcome:
    with torch.set_grad_enabled(obligation.gradients), seeded(), mode or contextlib.nullcontext():
        return program.run_as_it_is(obligation.args, obligation.kwargs)


def _first_mismatch(a: Sequence[Any], b: Sequence[Any]) -> int | None:
    return next(_mismatches(a, b), None)


def _mismatches(a: Sequence[Any], b: Sequence[Any]) -> Iterator[int]:
    if len(a) != len(b):
        yield min(len(a), len(b))
    for i, (x, y) in enumerate(zip(a, b)):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.shape != y.shape or not _close(x, y):
                yield i
        elif type(x) is not type(y):
            yield i


MANY_ULPS = 1000
"""Differences of kernels of one dtype, in ulps of the largest element."""


def _close(a: Tensor, b: Tensor) -> bool:
    """True if both are equal within the differences of kernels of one dtype."""
    if not a.numel():
        return True
    eps = max(torch.finfo(t.dtype).eps if is_number(t.dtype) else 0.0 for t in (a, b))
    x, y = _wide(a), _wide(b)
    return torch.allclose(x, y, rtol=0, atol=MANY_ULPS * eps * _largest(a), equal_nan=True)


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two elements; infinity if one is infinite or nan."""
    if a.shape != b.shape:
        return math.inf
    apart = (_wide(a) - _wide(b)).abs()
    return float(apart.max()) if bool(apart.isfinite().all()) else math.inf


def _size(x: Tensor) -> float:
    """Return the largest absolute value; infinity if one is infinite or nan."""
    return _distance(x, torch.zeros_like(x))


def _largest(x: Tensor) -> float:
    """Return the largest finite absolute value; 0 if there is none."""
    finite = _wide(x)[x.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.complex128 if x.dtype.is_complex else torch.float64)


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and is_number(x.dtype) and x.numel() > 0
