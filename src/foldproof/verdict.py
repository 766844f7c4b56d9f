"""Verdicts: the closed set of answers, with the evidence of each. Knows nothing of torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from foldproof.claim import Claim, Scope, meet
from foldproof.formatting import as_html

SCHEMA = 2
"""Version of the JSON form that `Verdict.to_dict` writes; see ``report/schema.json``."""


class Kind(str, Enum):
    """The answers about two programs."""

    PROVED = "PROVED"
    PROVED_WITHIN = "PROVED_WITHIN"
    ROUNDING = "ROUNDING"
    REFUTED = "REFUTED"
    UNDECIDED = "UNDECIDED"

    def __str__(self) -> str:
        return self.value

    @property
    def exit_code(self) -> int:
        """Exit status of the command line: 0 for no problem, 1 for REFUTED, 3 for UNDECIDED (2 is wrong usage)."""
        return {Kind.REFUTED: 1, Kind.UNDECIDED: 3}.get(self, 0)


@dataclass(frozen=True)
class Proof:
    """The certainty of a residue comparison.

    ``log2_error`` bounds the probability that this PROVED is wrong, over the random residues and primes (Schwartz 1980,
    Zippel 1979). The bound is the sum, over all attempts that might have ended in a proof, of
    (1 + pairs of uninterpreted evaluations) * (degree/p + bits/(19*#primes))^k.

    Attributes:
        log2_error: base-2 logarithm of that bound.
        degree: the largest degree of a polynomial that was hashed or compared.
        bits: the largest size of a coefficient, in bits.
        evaluations: elements that uninterpreted functions were applied to.
        primes: the primes carried jointly.
        attempts: comparisons that might have given this proof; each is charged in ``log2_error``.
        uninterpreted: operators with a single assumption, that equal operands give equal results.
        branching: operators with one branch followed, the one that the values took.
        cuts: values that both programs compute, read as uninterpreted functions of themselves to keep degrees small.
        jumping: operators whose results jump, so that rounding an operand may move them by more than rounding.
    """

    log2_error: float
    degree: int
    bits: int
    evaluations: int
    primes: tuple[int, ...]
    attempts: int = 1
    uninterpreted: tuple[str, ...] = ()
    branching: tuple[str, ...] = ()
    cuts: int = 0
    jumping: tuple[str, ...] = ()
    _shapes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def k(self) -> int:
        """Number of primes carried jointly."""
        return len(self.primes)

    @property
    def shapes(self) -> tuple[str, ...]:
        """Deprecated: they are in ``verdict.claim.shapes``."""
        warn_of_old_name(self, "shapes", "shapes of the verdict's claim")
        return self._shapes

    @property
    def opaque_evaluations(self) -> int:
        """Deprecated name of ``evaluations``."""
        warn_of_old_name(self, "opaque_evaluations", "evaluations")
        return self.evaluations

    @property
    def opaque(self) -> tuple[str, ...]:
        """Deprecated name of ``uninterpreted``."""
        warn_of_old_name(self, "opaque", "uninterpreted")
        return self.uninterpreted

    @property
    def branch(self) -> tuple[str, ...]:
        """Deprecated name of ``branching``."""
        warn_of_old_name(self, "branch", "branching")
        return self.branching


@dataclass(frozen=True)
class ApproximationStep:
    """A deliberate difference of the two programs, of at most ``bound`` (absolute, in real units)."""

    name: str
    bound: float


@dataclass(frozen=True)
class Rounding:
    """A difference in floating point, compared with the rounding that is to be expected.

    `foldproof.prove` evaluates both programs in float64, where only the rounding of constants can drive them apart.
    `foldproof.compare` runs both in their own dtypes, where every operator rounds. Either noise floor comes from runs
    that perturb these quantities within their rounding (Monte Carlo arithmetic, Parker 1997).

    Attributes:
        difference: the distance of the worst element: of the second program from the first, or of the candidate from
            the float64 result; 0 for outputs of the same bits.
        floor: the standard deviation that rounding gives that element.
        trials: inputs that were tried.
        sigma: ``difference`` in units of ``floor``.
    """

    difference: float
    floor: float
    trials: int
    sigma: float

    @property
    def ratio(self) -> float:
        """Deprecated name of ``sigma``."""
        warn_of_old_name(self, "ratio", "sigma")
        return self.sigma


@dataclass(frozen=True)
class Counterexample:
    """Real inputs and parameters on which the two programs differ by far more than rounding explains.

    Attributes:
        description: where the inputs and parameters come from.
        output: number of the output that differs most.
        index: the element of it that differs most.
        before: that element's value in the first program; ``after`` in the second.
        difference: the distance of the two, absolute.
        floor: the standard deviation that rounding gives that distance.
        inputs: the inputs, tensors or other values, in order.
        parameters: the parameters by name. ``to_dict`` keeps the values of small tensors, and shapes of all.
        name: the value that differs in words, such as "buffer cache after the call"; empty for an output.
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
    name: str = ""


@dataclass(frozen=True)
class DifferingNode:
    """A node of the second graph whose value should equal one of the first graph, and differs."""

    node: str
    operator: str
    source: str | None


@dataclass(frozen=True)
class Difference:
    """The first value of the first program that the second lacks, although a differing output needs it.

    ``region`` lists all such values. ``after`` is the corresponding node of the second graph, if there is one.
    ``frontier`` pairs the computed values that the region reads up to this node with the nodes of equal value in the
    second graph. ``module`` is the path of the module that computes the node.
    """

    node: str
    operator: str
    source: str | None
    region: tuple[str, ...] = ()
    after: DifferingNode | None = None
    frontier: tuple[tuple[str, str], ...] = ()
    module: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer to "are these two programs the same function?", with its evidence.

    Attributes:
        kind: the answer.
        reason: one sentence.
        claim: the inputs, parameters and shapes for which the answer holds; None if there is no claim.
        proof: the certainty of a proof.
        steps: deliberate differences of the programs, each with its bound.
        rounding: a difference in floating point, compared with the rounding that is to be expected.
        counterexample: for REFUTED, inputs and parameters on which the programs differ.
        difference: the first difference of the programs.
        notes: more sentences.
        seconds: the time that it took.
    """

    kind: Kind
    reason: str
    claim: Claim | None = None
    proof: Proof | None = None
    steps: tuple[ApproximationStep, ...] = ()
    rounding: Rounding | None = None
    counterexample: Counterexample | None = None
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True if the programs are equal up to rounding and named steps, and not at these parameters only."""
        return not self.kind.exit_code and not (self.claim is not None and self.claim.differs_elsewhere)

    def __post_init__(self) -> None:
        if self.proof is not None and self.claim is not None:
            object.__setattr__(self.proof, "_shapes", self.claim.shapes)  # for its deprecated attribute

    def __bool__(self) -> bool:
        raise TypeError("a Verdict is neither true nor false: ask for verdict.ok, or compare verdict.kind")

    @property
    def follows_choices(self) -> bool:
        """True if the answer holds only where both programs make the same choices as at the points of comparison."""
        return self.claim is not None and bool(self.claim.choices)

    @property
    def quantified(self) -> str:
        """Deprecated: ``str(verdict.claim)``."""
        warn_of_old_name(self, "quantified", "claim, and str() of it")
        return "" if self.claim is None else str(self.claim)

    @property
    def witness(self) -> Counterexample | None:
        """Deprecated name of ``counterexample``."""
        warn_of_old_name(self, "witness", "counterexample")
        return self.counterexample

    def evidence(self) -> list[Evidence]:
        """Return the evidence in words, each a label and a text, in reading order."""
        return [Evidence(label, text) for label, tell in EVIDENCE for text in tell(self)]

    @property
    def summary(self) -> str:
        """The answer in a few lines: the evidence without shapes, primes and uninterpreted functions."""
        told = [Evidence(label, text) for label, tell in EVIDENCE for text in SHORT.get(label, tell)(self)]
        return self._lines(told)

    def _lines(self, evidence: Iterable[Evidence]) -> str:
        return "\n".join([f"{self.kind}: {self.reason}", *(f"  {one.label}: {one.text}" for one in evidence)])

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values (schema version in ``"schema"``)."""
        out: dict[str, Any] = {"schema": SCHEMA, "kind": self.kind.value}
        for name in ("reason", "notes", "seconds"):
            out[name] = plain(getattr(self, name))
        out["claim"] = self.claim.to_dict() if self.claim else None
        proof = asdict(self.proof) if self.proof else {}
        proof.pop("_shapes", None)
        out["proof"] = plain(proof) or None
        out["steps"] = [asdict(s) for s in self.steps]
        out["rounding"] = plain(asdict(self.rounding)) if self.rounding else None
        out["difference"] = plain(asdict(self.difference)) if self.difference else None
        out["counterexample"] = _counterexample_dict(self.counterexample) if self.counterexample else None
        out["evidence"] = [asdict(e) for e in self.evidence()]
        return out

    def __str__(self) -> str:
        return self._lines(self.evidence())

    def __repr__(self) -> str:
        return f"<Verdict {self.kind}: {self.reason}>"

    def _repr_html_(self) -> str:
        return as_html(str(self))


def weakest(proved: Sequence[Verdict]) -> Verdict:
    """Return one verdict for several proofs of the same programs, at other sizes.

    It is PROVED if all are. Programs that differ do so at one of the sizes at least, and passed there by chance: the
    weakest bound holds.
    """
    proofs = [v.proof for v in proved if v.proof is not None]
    least = max(proofs, key=lambda p: p.log2_error)
    proof = replace(
        least,
        uninterpreted=tuple(dict.fromkeys(name for p in proofs for name in p.uninterpreted)),
        branching=tuple(dict.fromkeys(name for p in proofs for name in p.branching)),
        jumping=tuple(dict.fromkeys(name for p in proofs for name in p.jumping)),
    )
    return replace(
        max(proved, key=lambda v: v.kind is not Kind.PROVED),
        claim=meet(v.claim for v in proved if v.claim is not None),
        proof=proof,
        steps=tuple(dict.fromkeys(step for v in proved for step in v.steps)),
        notes=tuple(dict.fromkeys(note for v in proved for note in v.notes)),
        seconds=sum(v.seconds for v in proved),
    )


@dataclass(frozen=True)
class Evidence:
    """A piece of a verdict's evidence in words."""

    label: str
    text: str


def _tell_bound(verdict: Verdict) -> Iterable[str]:
    if verdict.proof:
        yield f"below 2^{math.ceil(verdict.proof.log2_error)}"


def _tell_certainty(verdict: Verdict) -> Iterable[str]:
    for bound in _tell_bound(verdict):
        p = verdict.proof
        assert p is not None
        counts = f"degree {p.degree}, {p.evaluations} uninterpreted evaluations, {p.k} primes {list(p.primes)}"
        counts += f", {p.cuts} cut point{'s' * (p.cuts != 1)}" * (p.cuts > 0)
        yield f"{bound} ({counts}{f', {p.attempts} attempts' * (p.attempts > 1)})"


def _tell_rounding(verdict: Verdict) -> Iterable[str]:
    r = verdict.rounding
    if r is not None and r.difference:
        yield (
            f"the worst element is off by {r.difference:.3g}, where rounding has a standard deviation of {r.floor:.3g}"
            f" ({r.sigma:.3g} sigma; {r.trials} input{'s' * (r.trials != 1)})"
        )


def _tell_counterexample(verdict: Verdict) -> Iterable[str]:
    c = verdict.counterexample
    if c is not None and not c.difference:
        yield c.description
    elif c is not None:
        where = f"{c.name or f'output {c.output}'} at {list(c.index)}"
        yield (
            f"{c.description}: {where} is {c.before:.6g} before and {c.after:.6g} after,"
            f" a difference of {c.difference:.3g} where rounding has a standard deviation of {c.floor:.3g}"
        )


def _tell_difference(verdict: Verdict) -> Iterable[str]:
    d = verdict.difference
    if d is not None:
        other = f"; in the second program {d.after.node} ({d.after.operator})" if d.after else ""
        agree = f"; all is equal up to {', '.join(a if a == b else f'{a} = {b}' for a, b in d.frontier[-3:])}"
        source = d.source or ""
        module = f" in {d.module}" if d.module and not source.startswith("module ") else ""
        where = module + (f" at {source}" if source else "")
        yield f"{d.node} ({d.operator}){where}{other}{agree * bool(d.frontier)}"


def _listed(names: Iterable[str]) -> Iterable[str]:
    text = ", ".join(names)
    return [text] if text else []


EVIDENCE: tuple[tuple[str, Callable[[Verdict], Iterable[str]]], ...] = (
    ("holds for", lambda v: [str(v.claim)] if v.claim and v.claim.scope is not Scope.POINT else []),
    ("shapes", lambda v: _listed(v.claim.shapes if v.claim and v.proof else ())),
    ("chance of being wrong", _tell_certainty),
    ("uninterpreted (any function will do)", lambda v: _listed(v.proof.uninterpreted if v.proof else ())),
    ("only the visited branch of", lambda v: _listed(v.proof.branching if v.proof else ())),
    ("approximation", lambda v: [f"{s.name}: within {s.bound:.3g}" for s in v.steps]),
    ("rounding", _tell_rounding),
    ("counterexample", _tell_counterexample),
    ("first difference", _tell_difference),
    ("note", lambda v: v.notes),
)
"""Every kind of evidence: its label, and its texts for a verdict. Terminal, pages and reports read this list."""


SHORT: Mapping[str, Callable[[Verdict], Iterable[str]]] = {
    "shapes": lambda v: (),
    "chance of being wrong": _tell_bound,
    "uninterpreted (any function will do)": lambda v: (),
}
"""Shorter texts of some kinds of evidence, for a summary."""


def warn_of_old_name(owner: object, old: str, new: str) -> None:
    """Warn the reader of an attribute that has been renamed."""
    warnings.warn(f"{type(owner).__name__}.{old} is deprecated: use .{new}", DeprecationWarning, stacklevel=3)


def plain(value: Any) -> Any:
    """Return plain JSON values: tuples become lists, and numbers that JSON lacks become strings."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _counterexample_dict(w: Counterexample) -> dict[str, Any]:
    keep = ("description", "output", "name", "index", "before", "after", "difference", "floor")
    out = {name: plain(getattr(w, name)) for name in keep}
    out["inputs"] = [_tensor_dict(t) for t in w.inputs]
    out["parameters"] = {name: _tensor_dict(t) for name, t in w.parameters.items()}
    return out


def _tensor_dict(t: Any) -> Any:
    if not hasattr(t, "shape"):
        return plain(t)
    out = {"shape": list(t.shape), "dtype": str(t.dtype)}
    return out | {"values": plain(t.tolist())} if t.numel() <= 64 else out
