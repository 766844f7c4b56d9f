"""Audits of compilers on one model, for the pages of `docs.make_audit_zoo`.

``python -m zoo.audited MODEL FOLDER WAY ...`` audits MODEL in some of the `WAYS`, and writes FOLDER/WAY.json. It runs
in a process of its own, like `zoo.measure`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import foldproof
from foldproof.auditing import api
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind, Verdict
from zoo.measure import FOLD, first_line, sample, stamp

WAYS: Mapping[str, Mapping[str, Any]] = {
    "Inductor": {"compiler": "inductor"},
    "Inductor, freezing": {"compiler": "inductor", "options": {"freezing": True}},
    "torchao PTQ": {"compiler": "torchao", "options": {"quantizer": "x86"}},
    "ExecuTorch XNNPACK": {"compiler": "executorch", "options": {"partitioner": "xnnpack"}},
    "ONNX": {"compiler": "onnx"},
    "OpenVINO": {"compiler": "openvino"},
    "Inductor, training": {"compiler": "inductor", "training": True},
}
"""Name → arguments of `foldproof.audit`; with ``training``, models are in training mode."""

LIMIT = 1200
"""Limit of processor time for one model, in seconds."""

TRIALS = 4
"""Number of inputs for the comparison of outputs; `foldproof.compare` has a page of its own."""


@dataclass(frozen=True)
class Audited:
    """One audit.

    ``calls`` is the number of watched calls of passes, ``verdicts`` the counts of verdicts on those that changed a
    graph. ``open`` has a row of pass, verdict and reason for each step that is not proved. ``numbers`` is the verdict
    on the compiled model, with its reason if it is REFUTED. ``failure`` is the message of an exception that ended the
    audit.
    """

    calls: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    open: list[tuple[str, str, str]] = field(default_factory=list)
    numbers: str = ""
    compile_seconds: float = 0.0
    seconds: float = 0.0
    failure: str | None = None


def audited(name: str, way: str) -> Audited:
    """Audit one model in one way."""
    made, arguments = sample(name), WAYS[way]
    model = made.model.train() if arguments.get("training") else made.model
    try:
        found = foldproof.audit(model, made.inputs, locate=False, **arguments)
    except FoldproofError as error:
        return Audited(failure=first_line(str(error)))
    fired = [step for step in found.steps if step.fired]
    verdicts = [(step.name, step.verdict) for step in fired]
    return Audited(
        calls=len(found.steps),
        verdicts=dict(Counter(str(v.kind) for _, v in verdicts)),
        open=[(n, str(v.kind), v.reason) for n, v in verdicts if v.kind not in (Kind.PROVED, Kind.PROVED_WITHIN)],
        numbers=_tell(found.end_to_end.verdict) if found.end_to_end is not None else found.uncompared,
        compile_seconds=found.compile_seconds,
        seconds=found.seconds,
    )


def _tell(verdict: Verdict) -> str:
    return f"{verdict.kind}: {verdict.reason}" if verdict.kind is Kind.REFUTED else str(verdict.kind)


def read(path: Path) -> Audited | None:
    """Read a result if it exists and is not stale."""
    if not path.exists():
        return None
    written = json.loads(path.read_text(encoding="utf-8"))
    return Audited(**written["result"]) if written["stamp"] == stamp(FOLD) else None


def write(path: Path, result: Audited) -> None:
    """Write a result, completely or not at all."""
    draft = path.with_suffix(".tmp")
    written = {"stamp": stamp(FOLD), "result": asdict(result)}
    draft.write_text(json.dumps(written, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(draft, path)


def main(name: str, folder: Path, *ways: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 10))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    setattr(api, "COMPARED_INPUTS", TRIALS)  # noqa: B010 (it is not exported)
    for way in ways:
        if read(folder / f"{way}.json") is None:
            write(folder / f"{way}.json", audited(name, way))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
