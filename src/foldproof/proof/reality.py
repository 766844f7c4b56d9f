"""The programs as their owner runs them, against the values that the shadows carried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.program import Program
from foldproof.proof.attempt import Attempt
from foldproof.proof.obligation import ProofObligation, tied


def unreal(obligation: ProofObligation, found: Attempt) -> str | None:
    """Why the runs on shadows do not stand for the real programs; None if they do.

    A module may do something else with ordinary tensors than with shadows (hooks on a graph, compiled parts, checks of
    a tensor's class, Python state); then a proof would speak of a program that nobody runs.
    """
    own = tied(obligation.before.leaves, lambda name, leaf: leaf.tensor.detach())
    programs = (("first", obligation.before), ("second", obligation.other(own).after))
    for (which, program), values in zip(programs, found.values):
        what = _differs(program, obligation, values)
        if what:
            return f"the {which} program {what}"
    return None


def repeats(obligation: ProofObligation) -> bool:
    """Whether *before* gives the same outputs twice (it is neither random nor changed by being run)."""
    try:
        with torch.set_grad_enabled(obligation.gradients):
            once, again = (obligation.before.run_as_it_is(obligation.args, obligation.kwargs).outputs for _ in range(2))
    except Exception as error:
        log_caught(error, "running the first program twice")
        return True
    return _first_mismatch(once, again) is None


def _differs(program: Program, obligation: ProofObligation, values: Sequence[Any]) -> str | None:
    try:
        with torch.set_grad_enabled(obligation.gradients):
            real = program.run_as_it_is(obligation.args, obligation.kwargs)
    except FoldproofError as error:
        return f"can't be run as it is: {error}"
    except Exception as error:
        log_caught(error, "running a program as it is")
        return f"fails when it is run as it is: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    at = _first_mismatch(real.outputs, values)
    if at is None:
        return None
    return f"gives another output {at} when it is run as it is than when it is run on shadows, so nothing is said of it"


def _first_mismatch(a: Sequence[Any], b: Sequence[Any]) -> int | None:
    if len(a) != len(b):
        return min(len(a), len(b))
    for i, (x, y) in enumerate(zip(a, b)):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.shape != y.shape or not _close(x, y):
                return i
        elif type(x) is not type(y):
            return i
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to what kernels of one dtype may differ by (a thousand units in the last place of the largest)."""
    if not a.numel():
        return True
    eps = max(torch.finfo(t.dtype).eps if t.dtype.is_floating_point else 0.0 for t in (a, b))
    x, y = (t.detach().to(torch.complex128 if t.dtype.is_complex else torch.float64) for t in (a, b))
    scale = float(x[x.isfinite()].abs().max()) if bool(x.isfinite().any()) else 0.0
    return torch.allclose(x, y, rtol=0, atol=1000 * eps * scale, equal_nan=True)
