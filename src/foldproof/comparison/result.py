"""The result of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from foldproof.formatting import as_html, format_part, format_percent
from foldproof.graph.view import GraphView
from foldproof.verdict import SCHEMA, Kind, Verdict, plain

SHOWN = 5
"""Sources that are printed; ``to_dict`` has all of them."""


@dataclass(frozen=True)
class TruthDistance:
    """Distances of both sides from the float64 result.

    ``reference`` and ``candidate`` are root mean squares over all elements, averaged over the inputs; ``ratio`` is the
    geometric mean over the inputs of candidate / reference, and ``low`` to ``high`` its 95% confidence interval
    (Student's t on the logarithms). ``closer`` counts the inputs on which the candidate is the nearer side, of
    ``inputs`` on which the distances differ.
    """

    reference: float
    candidate: float
    ratio: float
    low: float
    high: float
    closer: int
    inputs: int

    @property
    def nearer(self) -> str:
        """The side nearer the float64 result, "neither" where the confidence interval holds 1."""
        if self.high < 1:
            return "candidate"
        return "reference" if self.low > 1 else "neither"

    def __str__(self) -> str:
        told = f"reference {_far(self.reference)}, candidate {_far(self.candidate)} (root mean squares)"
        if not self.inputs:
            return told
        if not 0 < self.ratio < math.inf:
            return f"{told}; the candidate is nearer on {self.closer} of {self.inputs} inputs: {self.side}"
        if self.inputs == 1:
            return f"{told}; the candidate is {self.ratio:.3g} times as far, on one input"
        return (
            f"{told}; the candidate is {self.ratio:.3g} times as far (95% interval {self.low:.3g} to {self.high:.3g},"
            f" nearer on {self.closer} of {self.inputs} inputs): {self.side}"
        )

    @property
    def side(self) -> str:
        """The nearer side in words."""
        return "neither side is nearer" if self.nearer == "neither" else f"the {self.nearer} is nearer"

    @property
    def summary(self) -> str:
        """The nearer side in a few words."""
        if self.ratio == 1 and not self.inputs:
            return "both sides are equally far"
        if not 0 < self.ratio < math.inf:
            told = (("reference", self.reference), ("candidate", self.candidate))
            words = [f"the {name} is exact" for name, size in told if size == 0]
            words += [f"the {name} is infinite or no number" for name, size in told if size == math.inf]
            return f"{self.side} ({' and '.join(words)})" if words else self.side
        if self.inputs == 1:
            return f"the candidate is {self.ratio:.3g} times as far, on one input"
        return (
            f"{self.side} (the candidate is {self.ratio:.3g} times as far, 95% interval {self.low:.3g} to"
            f" {self.high:.3g})"
        )


def _far(distance: float) -> str:
    return "infinite" if distance == math.inf else f"{distance:.3g}"


@dataclass(frozen=True)
class NoiseFloor:
    """The reach of rounding alone at the given inputs, over ``runs`` runs with every operator perturbed.

    Root mean squares over the elements of floating-point outputs: ``size`` is that of the perturbed runs' distances to
    the float64 result, ``difference`` that of candidate − reference. ``sigma`` is the candidate's distance to the
    float64 result in units of the floor, element by element (root mean square), ``reference_sigma`` the reference's.
    """

    size: float
    difference: float
    sigma: float
    reference_sigma: float
    runs: int


@dataclass(frozen=True)
class DifferenceSource:
    """An operator at which the two sides part, fed the same inputs.

    All sizes are root mean squares. ``error`` is the difference made there. ``contribution`` is what it becomes in the
    outputs when the reference runs with this one difference put in, and ``amplification`` their ratio; that includes
    that later layers, fed other numbers, round otherwise. ``propagated`` is what it becomes where they do not round.
    ``share`` is the part of the whole difference that it accounts for (the projection of its contribution on it; a
    negative one makes it smaller). It is None where a share would mean nothing: shares do not add up to about 1, or all
    sources together do not reproduce the difference, as later layers round otherwise once a number changes. ``sigma``
    is the candidate's local error in units of what this operator alone may round.

    ``before`` has the operators on the way to it that the candidate does not show, so that the error may be theirs.

    ``measured`` is False where the candidate gives no numbers but its outputs: then ``share`` is the operator's part of
    the noise floor, that is, where rounding is to be *expected* to come from.
    """

    node: str
    operator: str
    source: str | None
    error: float
    contribution: float
    amplification: float
    propagated: float
    share: float | None
    sigma: float
    measured: bool = True
    before: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The operator, its line, and its part."""
        where = f" at {self.source}" if self.source else ""
        if not self.measured:
            share = f"{format_percent(self.share or 0.0)} of the rounding to be expected"
        elif self.share is None:
            share = self._of_rounding
        else:
            share = f"{format_part(self.share)} of the difference" if self.share >= 0 else format_part(self.share)
        return f"{self.node} ({self.operator}){where}{self._with}: {share}"

    @property
    def _of_rounding(self) -> str:
        if self.before:
            return f"{self.error:.2g} there"
        return f"{self.sigma:.2g} sigma of its own rounding" if math.isfinite(self.sigma) else "where it rounds nothing"

    @property
    def _with(self) -> str:
        return f", with {' and '.join(self.before)} before it" if self.before else ""

    def __str__(self) -> str:
        where = f" at {self.source}" if self.source else ""
        if not self.measured:
            return (
                f"{self.node} ({self.operator}){where}: {format_percent(self.share or 0.0)} of the noise floor;"
                f" {self.error:.2g} there, {self.contribution:.2g} in the outputs"
            )
        share = "" if self.share is None else f"{format_part(self.share)}; "
        return (
            f"{self.node} ({self.operator}){where}{self._with}: {share}{self.error:.2g} there"
            f"{'' if self.before else f' ({self._of_rounding})'}, amplified ×{self.amplification:.3g} to"
            f" {self.contribution:.2g} in the outputs ({self.propagated:.2g} if later layers did not round)"
        )


@dataclass(frozen=True)
class Layer:
    """Distances of an operator's value from the float64 result at the worst input, each side on its own way there.

    Root mean squares over the elements: ``floor`` is how far rounding alone moves the value, ``size`` that of the
    float64 result itself. ``candidate`` is None where the candidate does not show this value, or computes another one
    in its place, such as a convolution with its BatchNorm folded in.
    """

    node: str
    operator: str
    source: str | None
    reference: float
    candidate: float | None
    floor: float
    size: float


@dataclass(frozen=True)
class OutputDistance:
    """Distances of one value from the float64 result at the given inputs, and its noise floor; root mean squares.

    ``name`` is the value in words: "output 0", "buffer cache after the call". ``output`` numbers all that are compared.
    ``floor`` is None where both sides agree to the bit, for then none is measured.
    """

    output: int
    shape: tuple[int, ...]
    reference: float
    candidate: float
    floor: float | None
    name: str


@dataclass(frozen=True)
class InputDistance:
    """One input: both sides' distances from the float64 result, over all outputs (root mean squares).

    ``sigma`` is the candidate's in units of the noise floor, element by element; None for bit-identical outputs.
    """

    reference: float
    candidate: float
    sigma: float | None


@dataclass(frozen=True)
class CompareResult:
    """The answer to "two programs give different numbers: is that rounding, or is one wrong?".

    ``verdict`` is ROUNDING (bit-identical included, where ``identical`` is set), REFUTED or UNDECIDED, never PROVED:
    numbers prove nothing. ``truth_distance`` and ``noise_floor`` are None where no float64 result could be computed.
    ``sources`` has the largest source first, and ``found`` says in one sentence how they were found.
    ``against`` is the candidate in words, ``inputs`` the number of inputs tried.
    """

    verdict: Verdict
    truth_distance: TruthDistance | None
    noise_floor: NoiseFloor | None
    sources: tuple[DifferenceSource, ...]
    found: str
    against: str
    inputs: int
    identical: bool
    largest: float
    """The largest difference of an element, at any input."""
    scale: float
    """The largest magnitude of an element of the reference."""
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    reproduction: str | None = None
    """A Python script that shows it with nothing but PyTorch; None if not REFUTED, or not narrowed down."""
    outputs: tuple[OutputDistance, ...] = ()
    distances: tuple[InputDistance, ...] = ()
    """At each input, the given ones first."""
    layers: tuple[Layer, ...] = ()
    """Values along the depth; empty for bit-identical outputs."""
    training: str = ""
    """A sentence on modules that are in training mode, on either side."""
    uncompared: str = ""
    """A sentence on what was not compared, since the candidate does not show it."""
    drawing: GraphView = field(default=GraphView(()), repr=False)
    """The reference's graph."""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (see `foldproof.report`)."""
        distance = self.truth_distance
        return {
            "schema": SCHEMA,
            "command": "compare",
            "verdict": self.verdict.to_dict(),
            "identical": self.identical,
            "largest_difference": plain(self.largest),
            "largest_magnitude": plain(self.scale),
            "truth_distance": plain(asdict(distance) | {"nearer": distance.nearer}) if distance else None,
            "noise_floor": plain(asdict(self.noise_floor)) if self.noise_floor else None,
            "sources": [plain(asdict(s)) for s in self.sources],
            "found": self.found,
            "against": self.against,
            "inputs": self.inputs,
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "reproduction": self.reproduction,
            "training": self.training,
            "uncompared": self.uncompared,
            "outputs": [plain(asdict(one)) for one in self.outputs],
            "distances": [plain(asdict(one)) for one in self.distances],
            "layers": [plain(asdict(one)) for one in self.layers],
            "graph": self.drawing.to_dict(),
        }

    def __repr__(self) -> str:
        return f"<CompareResult {self.verdict.kind}: {self.verdict.reason}>"

    def _repr_html_(self) -> str:
        return as_html(str(self))

    @property
    def summary(self) -> str:
        """The answer in three lines: the verdict, the side nearer the float64 result, and the origin."""
        points = self.inputs > 1 and "inputs" not in self.verdict.reason
        tried = f" ({self.inputs} inputs of these sizes)" if points else ""
        lines = [*self.warnings, f"{self.kind}: {self.verdict.reason}{tried}"]
        if self.truth_distance and not self.identical:
            lines.append(f"  nearer the float64 result: {self.truth_distance.summary}")
        if self.sources:
            lines.append(f"  where it comes from: {self.sources[0].summary}")
        elif self.found:
            lines.append(f"  where it comes from: {self.found}")
        return "\n".join(lines)

    @property
    def warnings(self) -> list[str]:
        """Sentences that belong before the answer."""
        return [f"Caution: {self.training}"] if self.training else []

    def __str__(self) -> str:
        lines = [*self.warnings, str(self.verdict)]
        if self.largest > 0:
            lines.append(f"  largest difference {self.largest:.3g}, on outputs up to {self.scale:.3g}")
        if self.noise_floor and not self.identical:
            f = self.noise_floor
            lines.append(f"  noise floor {f.size:.3g}, difference {f.difference:.3g} (root mean squares)")
            if math.isfinite(f.sigma) and math.isfinite(f.reference_sigma):
                lines[-1] += (
                    f"; the candidate is {f.sigma:.2g} sigma from the float64 result, the reference"
                    f" {f.reference_sigma:.2g} ({f.runs} perturbed runs)"
                )
        if self.truth_distance:
            lines.append(f"  distance to the float64 result: {self.truth_distance}")
        if self.found:
            lines.append(f"  where it comes from: {self.found}")
        lines += [f"    {source}" for source in self.sources[:SHOWN]]
        if len(self.sources) > SHOWN:
            lines.append(f"    … and {len(self.sources) - SHOWN} more")
        return "\n".join(lines)

    @property
    def kind(self) -> Kind:
        """The verdict's kind."""
        return self.verdict.kind
