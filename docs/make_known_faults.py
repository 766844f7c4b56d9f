"""Writes docs/known_faults.md: fixed correctness bugs of `torch.compile`, planted again and audited.

``python -m docs.make_known_faults`` audits each program with and without its fault, in a quarter of an hour.
Results are kept in build/known_faults, by the version of the sources: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from docs.writing import write_whole
from foldproof import Kind
from tests.auditing import known_faults
from tests.auditing.known_faults import KNOWN, STAGES
from tests.auditing.known_faults.fault import KnownFault
from tests.auditing.known_faults.measure import KERNEL, OUTPUTS, STEP, SUSPECT, audit, measure
from zoo.commit import name_commit
from zoo.measure import FOLD, stamp

PAGE = Path(__file__).with_name("known_faults.md")
FOUND = PAGE.parent.parent / "build" / "known_faults"

HEAD = """# Known faults, planted again

Correctness bugs of `torch.compile` that are fixed, reimplemented from their public descriptions and never from their
code: a patch makes the installed release wrong in the way that the thread describes, often more simply than the bug
did, and `foldproof audit` runs on a small program that shows it. Where the thread is about a GPU, the patch is in code
that CPUs use, too. `python -m docs.make_known_faults` makes this page; `tests/auditing/test_known_faults.py` checks it.

A program that is REFUTED without its fault, too, does not count. *Refuted at* names the first step that is REFUTED. The
other faults are seen in the outputs, since they lie before Dynamo's graph, where steps begin, or below the loops, where
they end, or since no proof decides their step. The audit then says which kernel computes other numbers than its loops,
or which undecided step changes the numbers, if there is one. *Numbers alone* tells whether `torch.allclose`, with its
default tolerances, sees the fault in the outputs (of a training step, also in the gradients) on the same inputs: the
programs are written to show the faults, so that it has every chance to. It does not say where they are.
"""

WAYS = {KERNEL: "outputs, and the kernel is named", SUSPECT: "outputs, and `{}` is named", OUTPUTS: "outputs"}


def main() -> None:
    """Audit what has no result yet, then write the page."""
    path = FOUND / f"{_digest()}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    found = {row["name"]: row for row in map(json.loads, lines)}
    torch.set_num_threads(1)
    for name, fault in KNOWN.items():
        if name not in found:
            found[name] = {"name": name, **_measure(fault), "commit": name_commit()}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found[name]) + "\n")
    write_whole(PAGE, page(found))


def _digest() -> str:
    """The version of foldproof, of the packages, and of the faults."""
    files = sorted(Path(known_faults.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join([stamp(FOLD).encode(), *(file.read_bytes() for file in files)])).hexdigest()


def _measure(fault: KnownFault) -> dict[str, Any]:
    return {**asdict(measure(fault)), "without": audit(fault).kind}


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown."""
    rows = [found[name] for name in KNOWN if name in found]
    refuted = [row for row in rows if _is_refuted(row)]
    at_step = sum(row["way"] == STEP for row in refuted)
    numbers = sum(row["numbers"] for row in rows)
    out = [
        HEAD,
        f"**{len(refuted)} of {len(rows)} faults are refuted**, {at_step} at a step and {len(refuted) - at_step} in the"
        f" outputs. Numbers alone see {numbers}.",
        "",
        "| stage | faults | refuted | at a step | by numbers alone |",
        "|---|---|---|---|---|",
    ]
    for stage, faults in STAGES.items():
        own = [found[name] for name in faults if name in found]
        seen = [row for row in own if _is_refuted(row)]
        steps = sum(row["way"] == STEP for row in seen)
        out.append(f"| {stage} | {len(own)} | {len(seen)} | {steps} | {sum(row['numbers'] for row in own)} |")
    out += ["", "| fault | stage | thread | refuted at | numbers alone |", "|---|---|---|---|---|"]
    for stage, faults in STAGES.items():
        out += [_row(stage, fault, found[name]) for name, fault in faults.items() if name in found]
    (commit, _), *_ = Counter(row["commit"] for row in rows).most_common()
    out += ["", f"Made at commit `{commit}`, with torch {torch.__version__}."]
    return "\n".join(out) + "\n"


def _is_refuted(row: Mapping[str, Any]) -> bool:
    return bool(row["kind"] == Kind.REFUTED and row["without"] != Kind.REFUTED)


def _row(stage: str, fault: KnownFault, row: Mapping[str, Any]) -> str:
    thread = f"[#{fault.thread}](https://github.com/pytorch/pytorch/issues/{fault.thread})"
    at = f"`{row['at']}`" if row["way"] == STEP else WAYS.get(row["way"], "").format(row["at"])
    if not _is_refuted(row):
        at = f"not refuted: {row['conclusion']}"
    return f"| {fault.what} | {stage} | {thread} | {at} | {'yes' if row['numbers'] else 'no'} |"


if __name__ == "__main__":
    main()
