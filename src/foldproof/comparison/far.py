"""Differences within the noise floor that are no rounding: a candidate many times as far from the float64 result.

The floor allows for every algorithm that a runtime may use: a variance by E[x²] − μ², a sum added term by term. Where
values are far from zero, or sums are long, such algorithms lose most digits, and a floor that allows for them hides a
wrong epsilon. The reference shows what these numbers lose: its own rounding takes it as far from its float64 result as
it is. Another algorithm of the same care is a few times as far on some inputs, and nearer on others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from foldproof.comparison.distance import truth_distance
from foldproof.comparison.judge import Outputs, distance, number, rms
from foldproof.comparison.result import TruthDistance
from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.proof.programs import prove
from foldproof.thresholds import FEWEST_COMPARED_INPUTS, MAX_TIMES_AS_FAR, MIN_TIMES_AS_FAR, ROUNDINGS_OF_NEAR
from foldproof.torch_internals import is_compiled
from foldproof.verdict import Kind, Verdict

_CARELESS = "a variance as E[x²] − μ², a long sum term by term, subnormal numbers taken for 0"


def find_far(trials: Iterable[Sequence[Outputs]]) -> tuple[str, TruthDistance] | None:
    """Return the first value that the candidate has too far from the float64 result, with both distances.

    ``trials`` has the values of each input in parts. A value is too far if the candidate is farther than the reference
    on every input, `MIN_TIMES_AS_FAR` times by the lower end of the interval, and by more than a few roundings of the
    value itself, which count as near however near the reference is: it may be exact.
    """
    by_name: dict[str, list[Outputs]] = {}
    for parts in trials:
        for part in parts:
            for i in part.floats:
                one = Outputs([part.reference[i]], [part.candidate[i]], [part.float64[i]], [part.names[i]])
                by_name.setdefault(part.names[i], []).append(one)
    for name, values in by_name.items():
        found = truth_distance(values)
        if found is None or found.inputs < FEWEST_COMPARED_INPUTS or found.closer or found.low < MIN_TIMES_AS_FAR:
            continue
        if all(_is_beyond_roundings(one) for one in values):
            return name, found
    return None


def _is_beyond_roundings(one: Outputs) -> bool:
    """True if the candidate's distance is more than a few roundings of the value, or a part of it, in its own dtype."""
    dtype = one.reference[0].dtype
    real = torch.finfo(dtype).eps / 2
    size = rms([number(one.float64[0]).nan_to_num(0.0, 0.0, 0.0)])
    return rms(distance(one.candidate, one.float64, [0])) > ROUNDINGS_OF_NEAR * real * size


def judge_far(
    name: str,
    found: TruthDistance,
    reference: Any,
    program: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    agrees: bool | None,
) -> Verdict | None:
    """Return the verdict on a value that is too far: what a proof says of the two programs.

    A proof tells a careless algorithm for the same function (ROUNDING) from another function (REFUTED). Without one,
    the verdict is UNDECIDED beyond `MAX_TIMES_AS_FAR`, and None below it. ``agrees`` says if both graphs have equal
    float64 results; None where the candidate shows no graph.
    """
    far = tell_far(name, found)
    proved = prove_both(reference, program, args, kwargs)
    if proved is not None and proved.kind is Kind.REFUTED:
        return replace(proved, reason=f"no rounding: {far}, and the two are {proved.reason}")
    if proved is not None and proved.kind is Kind.PROVED:
        return Verdict(
            Kind.ROUNDING, f"{far}, but the two are {proved.reason} (proved): the candidate computes it less carefully"
        )
    if found.low < MAX_TIMES_AS_FAR:
        return None
    if agrees is False:
        beyond = "its operators round by less: in float64 the two differ, too, by another constant or another function"
        return Verdict(Kind.UNDECIDED, f"{far}; {beyond}")
    return Verdict(Kind.UNDECIDED, f"{far}; as rounding, only a careless algorithm explains it ({_CARELESS})")


def tell_far(name: str, found: TruthDistance) -> str:
    """Return both distances of a value in words."""
    return (
        f"{name} of the candidate is {found.ratio:.3g} times as far from the float64 result as the reference's, on all"
        f" {found.inputs} inputs"
    )


def prove_both(reference: Any, program: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Verdict | None:
    """Return the proof's verdict on the reference and the candidate's program; None where it shows none.

    A REFUTED counts for the values of its counterexample only: other keys of outputs are no other function here.
    """
    if program is None or any(map(is_compiled, program.modules() if isinstance(program, torch.nn.Module) else ())):
        return None
    try:
        found = prove(reference, program, args, kwargs)
    except FoldproofError as error:
        log_caught(error, "proving what compare could not tell from rounding")
        return None
    shown = found.counterexample
    return None if found.kind is Kind.REFUTED and (shown is None or not shown.difference) else found
