"""The candidate's own graph, and what its float64 result says: one function rounded otherwise, or another function.

The noise floor of the reference is that of the reference's formula. A candidate with another formula for the same
function may round more (the difference of two large numbers, where the reference subtracts first), and is no wrong
answer for it. Where the candidate shows its formula, both are computed in float64. Results that agree up to float64's
own rounding are those of one function at these inputs, and the candidate's numbers may be as far away as *its* noise
floor allows. So a verdict does not depend on which side is called the reference. Results that do not agree are those
of different functions, or of constants that were rounded; a proof tells which.

A candidate whose graph computes in a lower precision than the reference is not excused by it: that is a difference of
precision, which has to be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.comparison.calls import name_values
from foldproof.comparison.candidate import Candidate
from foldproof.comparison.graph import Graph
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import Judged, Outputs, distance, identical, judge, number, same
from foldproof.comparison.trial import Part
from foldproof.errors import FoldproofError
from foldproof.log import giving_up
from foldproof.rounding.floor import Floor
from foldproof.rounding.operands import Operands
from foldproof.thresholds import MAX_FLOAT64_SIGMAS, RUNS_AT_GIVEN_INPUTS
from foldproof.torch_internals import is_compiled


class _Function(nn.Module):
    """A plain callable as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def find_own_graph(candidate: Candidate, reference: Graph, given: Inputs, outputs: Sequence[Tensor]) -> Graph | None:
    """Return the graph of what the candidate runs; None where it shows none, or one in a lower precision.

    A graph counts only if it gives the candidate's very ``outputs`` at the inputs.
    """
    program = candidate.program
    if program is None and candidate.function is not None and not candidate.given_only:
        program = _Function(candidate.function)
    if program is None or any(map(is_compiled, program.modules() if isinstance(program, nn.Module) else ())):
        return None
    with giving_up("looking at the graph of the candidate"):
        try:
            graph = Graph(program, *given)
        except FoldproofError:
            return None
        if graph.higher_order is not None or graph.writes != reference.writes:
            return None
        graph.select = reference.select
        made = graph.run(*given)
        if _coarsest(graph) > _coarsest(reference) or not identical(made, outputs):
            return None
        return graph
    return None


def _coarsest(graph: Graph) -> float:
    return max((torch.finfo(dtype).eps for dtype in graph.dtypes.values()), default=0.0)


class Own:
    """The candidate's graph at the inputs of one trial, and its float64 result there."""

    def __init__(
        self,
        graph: Graph,
        calls: Sequence[Inputs],
        float64: Mapping[str, Tensor],
        seed: int,
        operands: Operands | None,
    ) -> None:
        self._graph, self._calls, self._float64 = graph, calls, float64
        self._seed, self._operands = seed, operands

    def _perturbed(self, seed: int, amplitude: float) -> dict[str, Tensor]:
        return name_values(
            self._graph.call_perturbed(self._calls, self._seed * 100_003 + seed, amplitude, self._operands)
        )

    def is_equal(self, parts: Sequence[Part]) -> bool:
        """Return True if both are one function at these inputs, as far as float64 shows it."""
        for part in parts:
            if part.judged is None:
                continue
            own = [self._float64.get(name) for name in part.values.names]
            if not are_equal(part.values, [x for x in own if x is not None], part.judged.floor):
                return False
        return True

    def judge(self, part: Part) -> Judged | None:
        """Return a judgement by the candidate's floor; None if the two are different functions at these inputs."""
        values = part.values
        if not all(name in self._float64 for name in values.names):
            return None
        own = [self._float64[name] for name in values.names]
        mirrored = Outputs(values.candidate, values.reference, own, values.names, values.subject)
        judged = judge(mirrored, part.reading(self._perturbed), RUNS_AT_GIVEN_INPUTS)
        if self._graph.unknown or not are_equal(values, own, judged.floor):
            return None
        place = judged.place and replace(
            judged.place, reference=judged.place.candidate, candidate=judged.place.reference
        )
        return replace(judged, candidate=judged.reference, reference=judged.candidate, place=place)


def own_at(graph: Graph, calls: Sequence[Inputs], seed: int, operands: Operands | None) -> Own | None:
    """Return the candidate's graph at the inputs of some calls; None where it has no float64 result there."""
    with giving_up("computing the candidate's graph in float64"):
        return Own(graph, calls, name_values(graph.call_in_float64(calls)), seed, operands)
    return None


def are_equal(values: Outputs, own: Sequence[Tensor], floor: Floor) -> bool:
    """Return True if two float64 results differ by no more than rounding in float64 explains."""
    if [x.shape for x in own] != [x.shape for x in values.float64]:
        return False
    others = [i for i in range(len(own)) if i not in values.floats]
    if not all(torch.equal(values.float64[i], own[i]) for i in others):
        return False
    for i in values.floats:
        a, b = number(own[i]), number(values.float64[i])
        if bool(((~a.isfinite() | ~b.isfinite()) & ~same(a, b)).any()):
            return False
    found = floor.score(distance(own, values.float64, values.floats))
    return max(found.rms, found.worst) <= MAX_FLOAT64_SIGMAS
