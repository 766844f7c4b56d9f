"""The stages of `torch.compile`, each compared with the model: the first one that is wrong tells where to look.

``dynamo`` runs the graph that Dynamo captures, ``aot_eager`` that of AOTAutograd, and ``aot_eager_decomp_partition``
the one that is decomposed as for Inductor, all with PyTorch's own kernels. In half precision, Inductor keeps values in
float32 that the model rounds; with ``emulate_precision_casts`` it rounds them, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.comparison import CompareResult
from foldproof.verdict import Kind, plain

BACKENDS = {"dynamo": "eager", "aot_eager": "aot_eager", "aot_eager_decomp_partition": "aot_eager_decomp_partition"}
"""The stages before Inductor, and the backends that end there."""
WHAT_RUNS = {
    "dynamo": "the graph that Dynamo captures",
    "aot_eager": "that of AOTAutograd in PyTorch's own kernels",
    "aot_eager_decomp_partition": "AOTAutograd's graph, decomposed, in PyTorch's own kernels",
}
EMULATED = {"emulate_precision_casts": True}


@dataclass(frozen=True)
class Stage:
    """The numbers of one stage.

    Attributes:
        name: the part of `torch.compile` that is the last one to run, or "eager" for the model itself.
        distance: the root mean square of the distance to the float64 result; None if there is none.
        kind: the verdict on the numbers.
        failure: the reason why there are no numbers.
    """

    name: str
    distance: float | None = None
    kind: Kind = Kind.UNDECIDED
    failure: str = ""

    def __str__(self) -> str:
        wrong = self.kind is Kind.REFUTED
        if self.failure:
            distance = self.failure
        elif self.distance is None:  # integers
            return f"{self.name} {'wrong' if wrong else 'right' if self.kind is not Kind.UNDECIDED else 'unknown'}"
        elif not math.isfinite(self.distance):
            distance = "infinite or no number"
        elif wrong and self.distance == 0:  # in a dtype, a shape, or what it writes
            return f"{self.name} wrong, though not in the numbers of its outputs"
        else:
            distance = format(self.distance, ".3g")
        return f"{self.name} {distance}{' (wrong)' * wrong}"

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> Stage:
        distance = None if told["distance"] is None else float(told["distance"])  # JSON has infinity as text
        return Stage(told["name"], distance, Kind(told["kind"]), told["failure"])

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "distance": plain(self.distance), "kind": self.kind.value}


def compare_stages(compare: Callable[[str], tuple[CompareResult | None, str]], whole: CompareResult) -> list[Stage]:
    """Compare the stages before Inductor with the model; ``whole`` is Inductor's comparison.

    ``compare`` returns that of a backend with the model, or None and the reason.
    """
    distance = whole.truth_distance
    eager = Stage("eager", distance.reference if distance is not None else None, Kind.ROUNDING)
    found = {name: compare(backend) for name, backend in BACKENDS.items()}
    return [eager, *(stage_of(name, *one) for name, one in found.items()), stage_of("inductor", whole)]


def stage_of(name: str, found: CompareResult | None, failure: str = "") -> Stage:
    """Return the stage that was compared, or that could not be."""
    if found is None:
        return Stage(name, failure=failure)
    return Stage(name, found.truth_distance.candidate if found.truth_distance is not None else None, found.kind)


def find_wrong(stages: Iterable[Stage]) -> str | None:
    """Return the name of the first stage that is wrong."""
    return next((stage.name for stage in stages if stage.kind is Kind.REFUTED), None)


def is_half(tensors: Iterable[Any]) -> bool:
    """Return True if a tensor is in half precision."""
    return any(isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) for x in tensors)


def tell_stages(stages: Iterable[Stage]) -> str:
    """Return the stages in a sentence, with the first one that is wrong."""
    stages = tuple(stages)
    told = f"stages, distance to the float64 result: {', '.join(map(str, stages))}"
    wrong = find_wrong(stages)
    return told if wrong is None else f"{told}; {wrong} is the first that is wrong"
