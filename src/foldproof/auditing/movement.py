"""The numbers of a step: the graphs before and after it, run on the same inputs in their own dtypes.

A proof is about all real numbers, and may stay undecided. This asks less, of every pass whose graphs can be run: do the
numbers at these inputs move by more than rounding? Such a pass is suspect, whatever is proved of it: x * 0 → 0 is right
over the real numbers, and wrong for an x with nan.

The measure is the graph before the step: its own distance from its result in float64 is what rounding does here. A step
may move the numbers by a few times that. Without a float64 result, the measure is a multiple of the dtype's precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change
from foldproof.auditing.snapshot import Snapshot
from foldproof.errors import brief
from foldproof.generators import seed_generators
from foldproof.log import giving_up, log_caught
from foldproof.program import as_program, copied
from foldproof.proof import run_on_copies
from foldproof.rounding import Float64
from foldproof.rounding.float64 import widened
from foldproof.thresholds import MAX_MOVED_ERRORS, MAX_MOVED_ROUNDINGS
from foldproof.torch_internals import tree_map


@dataclass(frozen=True)
class Movement:
    """The largest movement of the numbers of one output, or of what a call leaves behind.

    Attributes:
        where: the output, or the input or buffer that is written to.
        difference: the largest distance of two elements; infinite where one alone is finite.
        size: the largest finite number before.
        allowed: the distance that rounding explains.
        failure: the error of an operator, if the graph after the step can't be run and the one before can.
    """

    where: str
    difference: float
    size: float
    allowed: float
    failure: str = ""

    @property
    def explained(self) -> bool:
        """True if rounding explains it."""
        return self.difference <= self.allowed

    @property
    def excess(self) -> float:
        """The difference in units of what rounding explains."""
        if not self.difference:
            return 0.0
        return self.difference / self.allowed if self.allowed else math.inf

    @property
    def is_unfinite(self) -> bool:
        """True if elements are finite on one side only."""
        return not self.failure and math.isinf(self.difference)

    def __str__(self) -> str:
        if self.failure:
            return f"at the given inputs, the graph after it fails: {self.failure}"
        if not self.difference:
            return "it changes no bit at the given inputs"
        if self.is_unfinite:
            return f"at the given inputs, elements of {self.where} are finite on one side of it only"
        told = f"at the given inputs, it moves {self.where} by {self.difference:.3g}, of numbers up to {self.size:.3g}"
        return f"{told}, {'no more' if self.explained else 'more'} than rounding explains"


def measure_movement(change: Change, given: Sequence[Any]) -> Movement | None:
    """Return the worst movement of a step; None if a graph can't be run, or draws random numbers."""
    inputs = find_inputs(change.before, given if change.inputs is None else change.inputs)
    if change.unseen or inputs is None:
        return None
    try:
        before, again = (_numbers(change.before, inputs, seed) for seed in (0, 1))
    except Exception as error:
        log_caught(error, f"running the graph before {change.name}")
        return None
    try:
        after = _numbers(change.after, inputs, 0)
    except Exception as error:
        log_caught(error, f"running the graph after {change.name}")
        why = error.__cause__
        # Others come from operators that run inside of the compiler alone.
        refused = isinstance(why, RuntimeError) and not isinstance(why, NotImplementedError)
        return Movement("", math.inf, 0.0, 0.0, brief(why or error)) if refused else None
    if any(not _identical(before[name], again[name]) for name in before):
        return None  # it draws random numbers
    exact: dict[str, Tensor] = {}
    with giving_up(f"running the graph before {change.name} in float64"):
        exact = _exact_numbers(change.before, inputs)
    unwritten = _unwritten(change.before, inputs)
    pairs = {
        name: (before.get(name, unwritten.get(name)), after.get(name, unwritten.get(name))) for name in before | after
    }
    moved = [
        distance(name, a, b, exact.get(name))
        for name, (a, b) in pairs.items()
        if a is not None and b is not None and a.shape == b.shape
    ]
    # The one that is least explained by rounding.
    return max(moved, key=lambda one: one.excess, default=None)


def distance(where: str, a: Tensor, b: Tensor, exact: Tensor | None) -> Movement:
    """Return the movement from ``a`` to ``b``, of the same shape, measured by the float64 result if there is one."""
    one, other = _wide(a), _wide(b)
    finite = one.isfinite() & other.isfinite()
    apart = torch.where(finite, (one - other).abs(), 0.0)
    lost = not bool(((one == other) | (one.isnan() & other.isnan()) | finite).all())
    size = _largest(torch.where(finite, one.abs(), 0.0))
    epsilon = torch.finfo(a.dtype).eps if a.dtype.is_floating_point or a.dtype.is_complex else 0.0
    allowed = MAX_MOVED_ROUNDINGS * epsilon * size
    if exact is not None and exact.shape == a.shape:
        error = torch.where(finite & exact.isfinite(), (one - exact).abs(), 0.0)
        allowed = MAX_MOVED_ERRORS * (_largest(error) + epsilon * size)
    return Movement(where, math.inf if lost else _largest(apart), size, allowed)


def _numbers(snapshot: Snapshot, inputs: Sequence[Any], seed: int) -> dict[str, Tensor]:
    """Return the outputs and what the call writes to, by name."""
    seed_generators(seed)
    outcome = run_on_copies(as_program(snapshot.module), *copied((tuple(inputs), {})))
    return _named(outcome.outputs, outcome.effects)


def _exact_numbers(snapshot: Snapshot, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Return the float64 results."""
    wide = tree_map(widened, copied(tuple(inputs)))
    with Float64():
        outcome = run_on_copies(as_program(snapshot.module), wide, {}, widened)
    return {name: _wide(x) for name, x in _named(outcome.outputs, outcome.effects).items()}


def _named(outputs: Sequence[Any], effects: Any) -> dict[str, Tensor]:
    found = {f"output {i}": x for i, x in enumerate(outputs) if isinstance(x, Tensor)}
    return found | {f"{name} after the call": x for name, x in effects.items() if isinstance(x, Tensor)}


def _unwritten(snapshot: Snapshot, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Return what the call may write to, as it was."""
    given = {f"input {i}": x for i, x in enumerate(x for x in inputs if isinstance(x, Tensor))}
    held = {name: leaf.tensor for name, leaf in as_program(snapshot.module).leaves.items()}
    return _named((), given | held)


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _wide(x: Tensor) -> Tensor:
    x = torch.view_as_real(x.resolve_conj()) if x.dtype.is_complex else x
    return x.detach().to("cpu", torch.float64)


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0
