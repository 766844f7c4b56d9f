"""Faults: what an audit finds wrong, with a key that programs with one fault share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from foldproof.auditing import Audit, Step
from foldproof.verdict import Kind, Verdict


@dataclass(frozen=True)
class Fault:
    """A fault of a compiler.

    Attributes:
        stage: the part of the compiler: ``pass``, ``suspect`` (a pass that changes numbers without a proof of it),
            ``kernel``, ``numbers`` (where no part is known), ``crash``, or ``process`` for a process that ended;
            ``foldproof`` for a fault of its own.
        name: the pass, the decomposition, the lowering, or the error.
        difference: the kind of difference: ``values``, ``nan``, ``dtype``, ``shape``, ``memory`` (shared by
            tensors), ``writes``.
        operator: the operator that computes the first wrong value.
    """

    stage: str
    name: str
    difference: str = ""
    operator: str = ""

    @property
    def key(self) -> str:
        """The fault in one line; programs with the same one are one cluster."""
        return " | ".join(str(value) for value in asdict(self).values())

    def __str__(self) -> str:
        told = f"{self.stage} {self.name}".strip()
        return told + (f": {self.difference}" if self.difference else "") + f" at {self.operator}" * bool(self.operator)


def list_faults(found: Audit) -> list[Fault]:
    """Return the faults that an audit shows; none if every step is right, or not decided."""
    faults = list(dict.fromkeys(_of_steps(found)))
    whole = found.end_to_end
    if found.kernel is not None:
        origins = " ".join(sorted({_plain(one) for one in found.kernel.loop.origins}))
        faults.append(Fault("kernel", origins, "values"))
    elif not faults and whole is not None and whole.verdict.kind is Kind.REFUTED:
        source = next(iter(whole.sources), None)
        faults.append(
            Fault("numbers", found.lowering, _difference(whole.verdict), source.operator if source is not None else "")
        )
    contradicted = [s for s in found.undecided if "contradicts the real operator" in s.verdict.reason]
    faults += [Fault("foldproof", "a rule contradicts the real operator", "", _plain(s.name)) for s in contradicted[:1]]
    if found.crash:
        faults.append(Fault("crash", found.error))
    return faults


def _of_steps(found: Audit) -> Iterator[Fault]:
    steps = found.refuted or (found.suspects[:1] if found.kernel is None else [])
    for step in steps:
        first = step.verdict.difference
        operator = first.operator if first is not None else ""
        if step.loop is not None:
            operator = " ".join(sorted({_plain(one) for one in step.loop.origins}))
        elif step.decomposition:
            operator = step.decomposition
        yield Fault("pass" if step.verdict.kind is Kind.REFUTED else "suspect", _title(step), _moves(step), operator)


def _title(step: Step) -> str:
    return f"{step.name}, {step.part}" if step.part in ("forward", "backward") else step.name


def _moves(step: Step) -> str:
    if step.verdict.kind is Kind.REFUTED:
        return _difference(step.verdict)
    return "nan" if step.movement is not None and step.movement.is_unfinite else "values"


def _difference(verdict: Verdict) -> str:
    """Return the kind of difference that the sentence of a verdict tells."""
    told = verdict.reason
    for word, kind in (
        ("shares memory", "memory"),
        ("dtype", "dtype"),
        ("shape", "shape"),
        ("nan", "nan"),
        ("writ", "writes"),
        ("input", "writes"),
    ):
        if word in told:
            return kind
    return "values"


def _plain(name: str) -> str:
    """Return the name of a node without its number."""
    return re.sub(r"_\d+$", "", name)


def as_dict(fault: Fault) -> dict[str, Any]:
    return asdict(fault)
