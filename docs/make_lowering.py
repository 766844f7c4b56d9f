"""Writes docs/lowering.md: Inductor's lowering and scheduling of the operators of PyTorch's operator database.

``python -m docs.make_lowering [SECONDS]`` goes on with the sweep where the last run stopped, for at most that long, and
writes the page. Results are kept in build/lowering, by the version of the sources; operators come in random order, so
that the page of an unfinished sweep is a fair sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db

from zoo.measure import FOLD, stamp

PAGE = Path(__file__).with_name("lowering.md")
FOUND = PAGE.parent.parent / "build" / "lowering"
SECONDS = 3600

HEAD = """# Lowering and scheduling of each operator

`foldproof audit` proves, below Inductor's graphs, the lowering to loops and their scheduling
([how](how_it_works.md)). This page is a test of that on PyTorch's operator database (`op_db`): each operator by itself,
forward, on two samples drawn at random for each of float32 and int64, the second with its dimensions in the opposite
order in memory. `python -m docs.make_lowering` makes it.
"""

FAULTS = {
    "nn.functional.max_pool3d": "the loops over a window are put into the order of the input's strides, and `argmax`"
    " counts in that order; its result is read in the order of the dimensions. Places and gradients of pools whose"
    " windows are not unrolled are wrong for transposed inputs."
}
"""Faults of this release of Inductor, by the operator that shows them."""

PASSED = ("PROVED", "PROVED_WITHIN")


def main(seconds: int = SECONDS) -> None:
    """Continue the sweep, then write the page."""
    path = FOUND / f"{stamp(FOLD)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "zoo.lowered_operators", str(path)]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        subprocess.run(command, env=settings, timeout=seconds, check=False, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        sys.stderr.write("time is up: the sweep goes on at the next run\n")
    PAGE.write_text(page([json.loads(line) for line in path.read_text("utf-8").splitlines()]), encoding="utf-8")


def page(found: Sequence[dict[str, Any]]) -> str:
    """The page as Markdown."""
    rows = [row for one in found for row in one["rows"]]
    judged = [row for row in rows if row["kind"] != "none"]
    kinds = Counter(row["kind"] for row in judged)
    proved = sum(kinds[kind] for kind in PASSED)
    refuted = [row["operator"] for row in judged if row["kind"] == "REFUTED"]
    out = [
        HEAD,
        f"{len(found)} of the {len(op_db)} entries of the database, in random order; {len(judged)} samples with loops"
        " or kernels: "
        f"**{proved} proved ({proved / max(len(judged), 1):.1%})**.",
        "",
        "| verdict | samples |",
        "|---|---|",
        *(f"| {kind} | {n} |" for kind, n in kinds.most_common()),
        "",
        "## Not proved",
        "",
        "| samples | verdict | reason | operators |",
        "|---|---|---|---|",
        *_reasons([row for row in judged if row["kind"] not in PASSED]),
        "",
        *(
            f"The fault of `{name}` is Inductor's: {FAULTS[name]}\n"
            for name in dict.fromkeys(refuted)
            if name in FAULTS
        ),
        "## Not judged",
        "",
        "| samples | reason | operators |",
        "|---|---|---|",
        *(line.replace("| none ", "", 1) for line in _reasons([row for row in rows if row["kind"] == "none"])),
        "",
        f"Made {_tell_commits(found)}, with torch {torch.__version__}.",
    ]
    return "\n".join(out) + "\n"


def _tell_commits(found: Sequence[dict[str, Any]]) -> str:
    """Name the commits that the entries were run at; those that a change concerns are run again."""
    (first, _), *others = Counter(one["commit"] for one in found).most_common()
    return ", ".join([f"at commit `{first}`", *(f"{n} of the entries again at `{commit}`" for commit, n in others)])


def _reasons(rows: Sequence[dict[str, str]]) -> list[str]:
    """Rows of a table, one for each reason, the most common first."""
    counts = Counter((row["kind"], _shortened(row["why"])) for row in rows)
    lines = []
    for (kind, why), n in counts.most_common():
        names = dict.fromkeys(row["operator"] for row in rows if (row["kind"], _shortened(row["why"])) == (kind, why))
        told = ", ".join(f"`{name}`" for name in [*names][:6]) + (", …" if len(names) > 6 else "")
        lines.append(f"| {n} | {kind} | {why} | {told} |")
    return lines


def _shortened(why: str) -> str:
    """A reason without the numbers of one sample."""
    why = why.split(" (output ")[0] if " (output " in why else why
    return why.split("\n")[0].replace("|", "\\|")[:140]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
