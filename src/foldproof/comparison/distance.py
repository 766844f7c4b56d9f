"""The side nearer the float64 result over many inputs, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.comparison.judge import Outputs, distance, number, rms, same
from foldproof.comparison.result import TruthDistance

# Student's t, two-sided 95%, by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
_T |= {12: 2.179, 15: 2.131, 20: 2.086, 25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}


def truth_distance(trials: Sequence[Outputs]) -> TruthDistance | None:
    """Distances of both sides over all inputs; None where no output is a float.

    A side that is infinite or no number where the float64 result is finite, or the other way round, is infinitely far.
    """
    pairs = [(whole_distance(o.reference, o), whole_distance(o.candidate, o)) for o in trials if o.floats]
    if not pairs:
        return None
    reference, candidate = (sum(p[i] for p in pairs) / len(pairs) for i in (0, 1))
    # Where one side is exact there is no ratio; where both are equally far, there is nothing to tell.
    logs = [math.log(c / r) for r, c in pairs if 0 < r < math.inf and 0 < c < math.inf]
    apart = [c < r for r, c in pairs if r != c]
    if math.inf in (reference, candidate):
        logs = []
    if not logs:
        ratio = 1.0 if candidate == reference else (math.inf if candidate > reference else 0.0)
        # One side is exact on every input, or no number, which a single input shows.
        sure = len(set(apart)) == 1 and (len(apart) > 1 or math.inf in (reference, candidate))
        low, high = (ratio, ratio) if sure else (0.0, math.inf)
        return TruthDistance(reference, candidate, ratio, low, high, sum(apart), len(apart))
    mean = sum(logs) / len(logs)
    half = math.inf
    if len(logs) > 1:
        variance = sum((x - mean) ** 2 for x in logs) / (len(logs) - 1)
        half = _student(len(logs) - 1) * math.sqrt(variance / len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half) if half < math.inf else math.inf
    return TruthDistance(reference, candidate, math.exp(mean), low, high, sum(apart), len(apart))


def whole_distance(side: Sequence[Tensor], outputs: Outputs) -> float:
    """Return the root mean square of one side's distances from the float64 result over all floats of some outputs."""
    for i in outputs.floats:
        x, exact = number(side[i]), number(outputs.float64[i])
        dtype = side[i].dtype
        largest = torch.finfo(dtype).max if dtype.is_floating_point or dtype.is_complex else math.inf
        overflows = (x.isinf() & (exact.abs() > largest / 2)) & (x.sign() == exact.sign())
        if bool(((x.isfinite() != exact.isfinite()) & ~overflows).any()):
            return math.inf
        if bool((~x.isfinite() & ~exact.isfinite() & ~same(x, exact)).any()):
            return math.inf
    return rms(distance(side, outputs.float64, outputs.floats))


def _student(freedom: int) -> float:
    return next((_T[k] for k in sorted(_T, reverse=True) if k <= freedom), _T[1])
