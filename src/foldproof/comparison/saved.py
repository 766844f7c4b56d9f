"""Two sets of saved outputs, without the program that they are of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.comparison.candidate import saved_outputs
from foldproof.comparison.judge import distance, identical, number
from foldproof.formatting import format_count
from foldproof.verdict import Kind, Verdict


def judge_saved(reference: Any, candidate: Any) -> tuple[Verdict, float, float]:
    """Return the verdict on two sets of outputs, their largest difference, and the largest number.

    Without a program there is no float64 result and no noise floor, so that a difference is UNDECIDED: its size is told
    in units in the last place of the largest number of its output.

    Raises:
        FoldproofError: a file can't be read.
    """
    ours, theirs = saved_outputs(reference), saved_outputs(candidate)
    if list(ours) != list(theirs):
        return Verdict(Kind.REFUTED, f"one has outputs {', '.join(ours)}, the other {', '.join(theirs)}"), 0.0, 0.0
    for name, x in ours.items():
        y = theirs[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            one, other = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (x, y))
            return Verdict(Kind.REFUTED, f"output {name} is {one} in one, and {other} in the other"), 0.0, 0.0
    scale = max((_largest(x) for x in ours.values()), default=0.0)
    apart = {name: _largest(distance([theirs[name]], [x], [0])[0]) for name, x in ours.items()}
    if identical(list(ours.values()), list(theirs.values())):
        return Verdict(Kind.ROUNDING, "bit-identical"), 0.0, scale
    name = max((n for n, x in ours.items() if not identical([x], [theirs[n]])), key=lambda n: apart[n])
    return Verdict(Kind.UNDECIDED, _tell(name, ours[name], theirs[name], apart[name])), max(apart.values()), scale


def _tell(name: str, x: Tensor, y: Tensor, apart: float) -> str:
    count = int((number(x) != number(y)).sum())
    unit = 2.0 ** math.floor(math.log2(_largest(x))) * torch.finfo(x.dtype).eps if _has_units(x) else 0.0
    size = f" ({format_count(round(apart / unit), 'unit')} in the last place of its largest number)" if unit else ""
    return (
        f"output {name} differs in {count} of {x.numel()} elements, by up to {apart:.3g}{size}; numbers alone do not"
        " show how far rounding may move them: compare each with the model that they are of"
    )


def _has_units(x: Tensor) -> bool:
    return x.is_floating_point() and 0 < _largest(x) < math.inf


def _largest(x: Tensor) -> float:
    return float(number(x).nan_to_num(0.0, 0.0, 0.0).abs().max()) if x.numel() else 0.0
