"""The closed set of answers that foldproof gives, and the evidence each one carries. Knows nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

SCHEMA = 1
"""Version of the JSON form that `Verdict.to_dict` writes."""


SAME_CHOICES = ", where they make the same choices"
"""The end of what a proof speaks of that followed choices (of a maximum, an index, a rounding to integers)."""


class Kind(str, Enum):
    """What is known about two programs."""

    PROVED = "PROVED"
    PROVED_WITHIN = "PROVED_WITHIN"
    ROUNDING = "ROUNDING"
    REFUTED = "REFUTED"
    UNDECIDED = "UNDECIDED"

    def __str__(self) -> str:
        return self.value

    @property
    def exit_code(self) -> int:
        """Exit status of the command line: 0 fine, 1 REFUTED, 3 UNDECIDED (2 is for wrong usage)."""
        return {Kind.REFUTED: 1, Kind.UNDECIDED: 3}.get(self, 0)


@dataclass(frozen=True)
class Proof:
    """How sure a residue comparison is, and of what.

    ``log2_error`` bounds the probability that this PROVED is wrong, over the draw of residues and primes
    (Schwartz 1980, Zippel 1979): (1 + pairs of opaque evaluations) * (degree/p + bits/(19*#primes))^k.
    """

    log2_error: float
    degree: int
    bits: int
    opaque_evaluations: int
    primes: tuple[int, ...]
    shapes: tuple[str, ...]
    opaque: tuple[str, ...] = ()
    branch: tuple[str, ...] = ()

    @property
    def k(self) -> int:
        """Number of primes carried jointly."""
        return len(self.primes)


@dataclass(frozen=True)
class ApproximationStep:
    """A place where the two programs differ on purpose, by no more than ``bound`` (absolute, in real units)."""

    name: str
    bound: float


@dataclass(frozen=True)
class Rounding:
    """A difference against what rounding can explain.

    From `foldproof.prove`: both programs in float64, against rounding the parameters to their dtype; ``difference`` and
    ``floor`` are maxima of absolute values over elements, of the trial with the largest ratio.
    From `foldproof.compare`: both programs as they run, against the noise floor, and ``sigma`` is set: ``difference``
    is the candidate's distance to the float64 truth at its worst element, ``floor`` the standard deviation that
    rounding gives that element, and ``sigma`` their ratio. Bit-identical outputs have difference 0.
    """

    difference: float
    floor: float
    trials: int
    sigma: float | None = None

    @property
    def ratio(self) -> float:
        return self.difference / self.floor if self.floor else math.inf if self.difference else 0.0


@dataclass(frozen=True)
class Witness:
    """Real inputs and parameters on which the two programs differ by far more than rounding.

    ``inputs`` and ``parameters`` hold the tensors themselves; ``to_dict`` keeps small ones as lists, and shapes.
    """

    description: str
    output: int
    index: tuple[int, ...]
    before: float
    after: float
    difference: float
    floor: float
    inputs: tuple[Any, ...] = field(default=(), repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Difference:
    """The first value of *before* that *after* never computes although the differing output needs it."""

    node: str
    operator: str
    source: str | None
    region: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The answer to "are these two programs the same function?", with its evidence.

    ``quantified`` says of which inputs and parameters the claim speaks. ``reason`` is one sentence.
    """

    kind: Kind
    reason: str
    quantified: str = ""
    proof: Proof | None = None
    steps: tuple[ApproximationStep, ...] = ()
    rounding: Rounding | None = None
    witness: Witness | None = None
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values (schema version in ``"schema"``)."""
        out: dict[str, Any] = {"schema": SCHEMA, "kind": self.kind.value}
        for name in ("reason", "quantified", "notes", "seconds"):
            out[name] = plain(getattr(self, name))
        out["proof"] = plain(asdict(self.proof)) if self.proof else None
        out["steps"] = [asdict(s) for s in self.steps]
        out["rounding"] = plain(asdict(self.rounding) | {"ratio": self.rounding.ratio}) if self.rounding else None
        out["difference"] = plain(asdict(self.difference)) if self.difference else None
        out["witness"] = _witness_dict(self.witness) if self.witness else None
        return out

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.reason}"]
        if self.quantified:
            lines.append(f"  speaks of: {self.quantified}")
        if self.proof:
            p = self.proof
            lines.append(
                f"  chance of being wrong below 2^{math.ceil(p.log2_error)}"
                f" (degree {p.degree}, {p.opaque_evaluations} opaque evaluations, {p.k} primes {list(p.primes)})"
            )
            lines.append(f"  shapes: {', '.join(p.shapes)}")
            if p.opaque:
                lines.append(f"  opaque (any function will do): {', '.join(p.opaque)}")
            if p.branch:
                lines.append(f"  only the visited branch of: {', '.join(p.branch)}")
        lines += [f"  within {s.bound:.3g}: {s.name}" for s in self.steps]
        if self.rounding:
            r = self.rounding
            if r.sigma is None:
                lines.append(
                    f"  float64 difference {r.difference:.3g}, rounding explains {r.floor:.3g}"
                    f" (ratio {r.ratio:.3g}, {r.trials} trials)"
                )
            elif r.difference:
                lines.append(
                    f"  worst element: {r.difference:.3g} from the float64 truth, where rounding has a standard"
                    f" deviation of {r.floor:.3g} ({r.sigma:.3g} sigma; {r.trials} input{'s' * (r.trials != 1)})"
                )
        if self.witness:
            w = self.witness
            lines.append(
                f"  witness: {w.description}"
                if not w.difference
                else f"  witness: {w.description}: output {w.output} at {list(w.index)} is {w.before:.6g} before and"
                f" {w.after:.6g} after; differs by {w.difference:.3g} where rounding explains {w.floor:.3g}"
            )
        if self.difference:
            d = self.difference
            lines.append(f"  first difference: {d.node} ({d.operator})" + (f" at {d.source}" if d.source else ""))
        lines += [f"  note: {n}" for n in self.notes]
        return "\n".join(lines)


def plain(value: Any) -> Any:
    """Plain JSON values: tuples as lists, and numbers that JSON lacks as strings."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _witness_dict(w: Witness) -> dict[str, Any]:
    keep = ("description", "output", "index", "before", "after", "difference", "floor")
    out = {name: plain(getattr(w, name)) for name in keep}
    out["inputs"] = [_tensor_dict(t) for t in w.inputs]
    out["parameters"] = {name: _tensor_dict(t) for name, t in w.parameters.items()}
    return out


def _tensor_dict(t: Any) -> Any:
    if not hasattr(t, "shape"):
        return plain(t)
    out = {"shape": list(t.shape), "dtype": str(t.dtype)}
    return out | {"values": plain(t.tolist())} if t.numel() <= 64 else out
