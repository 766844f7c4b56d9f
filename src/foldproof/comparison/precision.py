"""Precisions that the other side may have on purpose, and that explain a difference as rounding.

A bfloat16 copy, autocast, TF32 and integer weights are no bugs, but differ by more than rounding to the reference's own
dtype. Each has a noise floor of its own. A difference that such a floor explains is still REFUTED unless the precision
was asked for: a wrong program may differ by as little.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foldproof.comparison.calls import name_values
from foldproof.comparison.graph import Graph
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import judge, unfinite
from foldproof.comparison.trial import Part, Trial
from foldproof.errors import FoldproofError
from foldproof.rounding.operands import Operands, quantized_to, rounded_to
from foldproof.thresholds import MAX_ROUNDING_RATIO, RUNS_AT_OTHER_INPUTS


@dataclass(frozen=True)
class Precision:
    """A precision: the ``dtype`` that every number is rounded to, or the errors of ``operands`` of products."""

    name: str
    dtype: torch.dtype | None = None
    operands: Operands | None = None

    @property
    def words(self) -> str:
        """The name, and what it costs where that is no property of a dtype."""
        return f"{self.name} (operands of products off by half a step)" if self.name == "int8" else self.name


PRECISIONS = {
    one.name: one
    for one in (
        Precision("tf32", operands=rounded_to(2.0**-11)),
        Precision("float16", torch.float16),
        Precision("bfloat16", torch.bfloat16),
        Precision("int8", operands=quantized_to(127)),
    )
}
"""Precisions by name, the finest first."""


def precision_of(given: torch.dtype | str | None) -> Precision | None:
    """Return the precision that a dtype or name stands for.

    Raises:
        FoldproofError: it is neither a floating-point dtype nor the name of a precision.
    """
    if given is None or (isinstance(given, str) and given in PRECISIONS):
        return None if given is None else PRECISIONS[given]
    dtype = getattr(torch, given, None) if isinstance(given, str) else given
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        names = ", ".join(PRECISIONS)
        raise FoldproofError(f"{given!r} is no precision; give a floating-point dtype, or one of: {names}")
    return Precision(str(dtype).removeprefix("torch."), dtype)


def explain(
    graphs: Sequence[Graph], trials: Sequence[Trial], calls: Sequence[Sequence[Inputs]], seed: int
) -> list[str]:
    """Return the names of the precisions whose noise explains what differs at all ``trials``, the finest first.

    ``graphs`` and ``calls`` have the reference and the inputs of the calls at each trial.
    """
    given = list(zip(graphs, trials, calls))
    return [name for name, one in PRECISIONS.items() if all(_explains(one, *trial, seed) for trial in given)]


def _explains(precision: Precision, graph: Graph, trial: Trial, calls: Sequence[Inputs], seed: int) -> bool:
    rounded = copy.copy(graph)
    rounded.precision = precision.dtype

    def explains(part: Part) -> bool:
        if part.judged is None:
            return True
        values = part.values
        others = [i for i in range(len(values.names)) if i not in values.floats]
        if not all(torch.equal(values.reference[i], values.candidate[i]) for i in others) or unfinite(values):
            return False
        perturb = part.reading(
            lambda k, amplitude: name_values(rounded.call_perturbed(calls, seed + k, amplitude, precision.operands))
        )
        return judge(values, perturb, RUNS_AT_OTHER_INPUTS, thoroughly=False).ratio <= MAX_ROUNDING_RATIO

    return all(map(explains, trial.parts))
