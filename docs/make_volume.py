"""Writes docs/volume.md: thousands of random pairs of programs are judged. Run by ``make docs-volume`` (an hour).

By hand: ``python -m docs.make_volume --pairs 168 --workers 2 --seed 0``, where ``--pairs`` are those of each group.
Pairs that are judged already are kept in build/volume, by commit, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import foldproof
from docs.writing import write_whole
from foldproof.verdict import Kind
from zoo.commit import name_commit
from zoo.volume.block import STATEFUL, STATELESS
from zoo.volume.judge import ERRORS, GROUPS, MAX_ROUNDING, MIN_CHANGE, Group, Judged, judge

PAGE = Path(__file__).with_name("volume.md")
KEPT = PAGE.parent.parent / "build" / "volume"
PROVED = (Kind.PROVED, Kind.PROVED_WITHIN)


@dataclass(frozen=True)
class Run:
    """The run that the page is made from."""

    command: str
    commit: str


def main() -> None:
    """Judge the pairs, then write the page in one go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=168, help="pairs of each group (default: 168)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--minutes", type=float, default=600.0, help="no pair is begun later (default: 600)")
    options = parser.parse_args()
    command = f"python -m docs.make_volume --pairs {options.pairs} --workers {options.workers} --seed {options.seed}"
    command += f" --minutes {options.minutes:g}" * (options.minutes != parser.get_default("minutes"))
    commit, end = name_commit(), time.time() + 60 * options.minutes
    kept = KEPT / f"{commit}.pickle"
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = {} if commit.endswith("dirty") else _read(kept)
    tasks = [(group, options.seed + i) for i in range(options.pairs) for group in GROUPS]
    missing = [task for task in tasks if task not in found]
    spawn = multiprocessing.get_context("spawn")
    with (
        kept.open("ab") as file,
        ProcessPoolExecutor(options.workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        for task, one in zip(missing, pool.map(partial(_judge, end), *zip(*missing))):
            if one is not None:
                found[task] = one
                pickle.dump((task, one), file)
                file.flush()
                sys.stderr.write(f"{len(found)}/{len(tasks)} {describe(one)}\n" if one.error else "")
    write_whole(PAGE, page([found[task] for task in tasks if task in found], Run(command, commit)))


def _read(kept: Path) -> dict[tuple[Group, int], Judged]:
    """The pairs that an earlier run has judged; a last one that is half-written goes."""
    found: dict[tuple[Group, int], Judged] = {}
    if kept.exists():
        with kept.open("r+b") as file:
            end = 0
            with suppress(EOFError, pickle.UnpicklingError):
                while True:
                    task, one = pickle.load(file)
                    found[task], end = one, file.tell()
            file.truncate(end)
    return found


def _judge(end: float, group: Group, seed: int) -> Judged | None:
    """Judge a pair, before ``end``; a change that changes nothing gives its place to the pair of a seed far off."""
    if time.time() > end:
        return None
    return judge(group, seed) or _judge(end, group, seed + 1_000_000)


def describe(one: Judged) -> str:
    """One pair in a line: what makes it again, and what was said of it."""
    blocks = ", ".join(f"**{name}**" if i == one.changed else name for i, name in enumerate(one.names))
    apart = f"{one.distance.ordinary:.2g} apart" if one.changed is not None else "equal"
    error = f"{one.error}: " if one.error else ""
    return f"{error}{one.group}, seed {one.seed} ({blocks}; {apart}): {one.kind}, {one.reason}"


def page(judged: Sequence[Judged], run: Run) -> str:
    """The page as Markdown."""
    equal, changed = (sum(one.group.changed is which for one in judged) for which in (False, True))
    operators = Counter(name for one in judged for name in one.operators)
    limited = [one for one in judged if one.kind in PROVED and one.group.changed]
    parts = [
        f"""\
# Thousands of random pairs

<!-- Written by docs/make_volume.py: run `make docs-volume`, don't edit. -->

Programs are put together at random from {len(STATELESS)} blocks of layers, activations, reductions, indexing and
moving of data, and {len(STATEFUL)} blocks that write to their buffers: running statistics, counters, caches, recurrent
states. Each program has one to three blocks, and these call {len(operators)} different ATen operators in this run.
Each block has rewrites that are right over the real numbers, and rewrites that are wrong: a factor of 1.003, another
epsilon, another axis of the same size, a bias or an update that is left out, a mask that is off by one.
`foldproof.prove` is asked of **{equal:,} pairs of equal** programs and of **{changed:,} pairs of changed** ones.

The truth comes from another side: both programs run in float64, in two calls in a row, at the given inputs and at
twelve random ones of several scales. Pairs that are nowhere more than {MIN_CHANGE:g} apart (the largest difference,
relative to the root mean square of the output or the buffer) count as not changed, and are replaced.""",
        "## Errors",
        _errors(judged),
        f"""\
*wrong PROVED*: proved, and different: anywhere if the claim is general, at the given inputs if it names choices that
values make, or held values. *wrong ROUNDING*: more than {MAX_ROUNDING:.1%} of the outputs' size apart, at inputs of
ordinary size. *false REFUTED*: equal. *exception*: no verdict at all. Each is a bug of foldproof. Changed pairs in
half precision hold no folded constants beside the change: their rounding alone may be more than {MAX_ROUNDING:.1%}.""",
        "## Verdicts",
        _verdicts(judged),
        f"""\
*two calls*: at least one block writes to its buffers. *limited*: proofs of changed programs with a claim that
says what it is limited to; {len(limited) or "none"} in this run. A changed pair that is UNDECIDED or REFUTED was
not passed; one that is ROUNDING is less than {MAX_ROUNDING:.1%} apart. Equal pairs that are ROUNDING or UNDECIDED are
no errors, but proofs that are missing, as of a folded weight that
is rounded.""",
    ]
    parts += ["\n".join(f"- {describe(one)}; the claim: {one.claim}" for one in limited)] if limited else []
    parts += [
        "## What is undecided, and why",
        _reasons(judged),
        f"## The {len(operators)} operators",
        "With the number of pairs that call each, as PyTorch's dispatcher sees them.",
        ", ".join(f"`{name}` {count}" for name, count in sorted(operators.items())),
        "## How this was made",
        f"""\
`{run.command}`, at commit `{run.commit}`, with torch {torch.__version__}, foldproof {foldproof.__version__},
Python {platform.python_version()}. A verdict takes {_median(judged):.2f} seconds of processor time in the median, and
all of them took {sum(one.seconds for one in judged) / 60:.0f} minutes. One pair is judged by
`judge(Group(torch.float32, changed=True, stateful=False), seed=7)` of `zoo.volume.judge`.""",
    ]
    return "\n\n".join(parts) + "\n"


def _median(judged: Sequence[Judged]) -> float:
    return sorted(one.seconds for one in judged)[len(judged) // 2]


def _errors(judged: Sequence[Judged]) -> str:
    lines = []
    for dtype in dict.fromkeys(group.dtype for group in GROUPS):
        of_dtype = [one for one in judged if one.group.dtype == dtype]
        counts = Counter(one.error for one in of_dtype)
        sizes = [str(sum(one.group.changed is which for one in of_dtype)) for which in (False, True)]
        lines.append([str(dtype).removeprefix("torch."), *sizes, *(str(counts[error]) for error in ERRORS)])
    found = [f"- {describe(one)}" for one in judged if one.error is not None]
    return "\n".join([_table(["dtype", "equal pairs", "changed pairs", *ERRORS], lines), *["\n", *found] * bool(found)])


def _verdicts(judged: Sequence[Judged]) -> str:
    lines = []
    for group in GROUPS:
        of_group = [one for one in judged if one.group == group]
        counts = Counter(one.kind for one in of_group)
        limited = sum(one.limited and one.kind in PROVED for one in of_group) if group.changed else "–"
        lines.append([str(group), str(len(of_group)), *(str(counts[kind]) for kind in Kind), str(limited)])
    return _table(["pairs", "number", *map(str, Kind), "limited"], lines)


def _reasons(judged: Sequence[Judged]) -> str:
    lines = []
    for changed in (False, True):
        undecided = [one for one in judged if one.kind is Kind.UNDECIDED and one.group.changed is changed]
        for reason, count in Counter(_plain(one.reason) for one in undecided).most_common():
            lines.append(["changed" if changed else "equal", str(count), reason])
    return _table(["pairs", "number", "reason"], lines) if lines else "Nothing is."


def _plain(reason: str) -> str:
    """Without what is of one pair only."""
    _, found, rest = reason.partition("), and ")
    return (rest if found and reason.startswith("no algebraic proof") else reason).replace("|", "\\|")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
