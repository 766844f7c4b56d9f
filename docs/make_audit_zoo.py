"""Writes docs/audit_zoo.md: audits of compilers on the zoo.

``python -m docs.make_audit_zoo [MODEL ...]``. Each model is audited in a process of its own. Results are cached in
build/audit_zoo until something they depend on changes. With names, only those models are audited, in that order; the
page shows all results.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import foldproof
from docs.writing import write_whole
from foldproof.verdict import Kind
from zoo.audited import LIMIT, TRIALS, WAYS, Audited, read
from zoo.commit import name_commit
from zoo.measure import package_version
from zoo.table import ZOO

PAGE = Path(__file__).with_name("audit_zoo.md")
FOUND = PAGE.parent.parent / "build" / "audit_zoo"
WORKERS = len(os.sched_getaffinity(0))


def main(*names: str) -> None:
    """Audit the models without a result, then write the page in one go."""
    missing = [name for name in names or ZOO if any(r is None for r in results(name).values())]
    with ThreadPoolExecutor(WORKERS) as pool:
        for name in pool.map(measure, missing):
            sys.stderr.write(f"{name}\n")
    found = {name: {way: r for way, r in results(name).items() if r is not None} for name in ZOO}
    write_whole(PAGE, page({name: ways for name, ways in found.items() if ways}))


def results(name: str) -> dict[str, Audited | None]:
    """The cached results of a model, by pipeline."""
    return {way: read(FOUND / name / f"{way}.json") for way in WAYS}


def measure(name: str) -> str:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "zoo.audited", name, str(folder)]
        settings = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=settings, stdout=log, stderr=log, timeout=10 * LIMIT, check=False)
    return name


Found = dict[str, dict[str, Audited]]


def page(found: Found) -> str:
    """The page as Markdown."""
    packages = ("torch", "torchao", "executorch", "transformers")
    versions = ", ".join(f"{name} {package_version(name)}" for name in packages)
    made = f"`python -m docs.make_audit_zoo` at commit `{name_commit()}`, with foldproof {foldproof.__version__}, "
    made += versions
    told = f"""\
{len(found)} of the zoo's {len(ZOO)} architectures, compiled by {len(WAYS)} pipelines of released compilers. Every
call of a pass was watched, and every call that changed a graph was checked; with Inductor, so were the loops that it
makes of the graph (lowering), and their fusion and order (scheduling). These models have no known faults, so a
REFUTED would be a finding or a false alarm; the goal is no false alarm, at most 2 % of steps UNDECIDED, and at most
0.5 % ROUNDING. *numbers*: `foldproof.compare` of the compiled model with the original on {TRIALS} inputs. Made by
{made}; {WORKERS} models at a time with one thread each. Ratios are of wall-clock times, and a compiler's first
compilation includes its imports, so they say little. Empty cells were not audited."""
    return (
        "\n\n".join(
            [
                "# Compilers on the zoo, audited",
                "<!-- Written by docs/make_audit_zoo.py, don't edit. -->",
                textwrap.fill(" ".join(told.split()), 120, break_long_words=False, break_on_hyphens=False),
                "## Totals",
                _totals(found),
                "## Steps that are not proved",
                _open(found),
                "## Models",
                "Steps that changed a graph: proved (or proved within bounds) / rounding / undecided / refuted, and the"
                " verdict on the numbers.",
                _models(found),
                *_failures(found),
            ]
        )
        + "\n"
    )


def _audits(found: Found, way: str) -> list[Audited]:
    return [ways[way] for ways in found.values() if way in ways and ways[way].failure is None]


def _count(audits: Iterable[Audited], *kinds: Kind) -> int:
    return sum(a.verdicts.get(str(kind), 0) for a in audits for kind in kinds)


def _totals(found: Found) -> str:
    head = ["pipeline", "models", "steps", "changed a graph", *map(str, Kind), "proved", "audit ÷ compile"]
    rows = []
    for way in WAYS:
        audits = _audits(found, way)
        fired = sum(sum(a.verdicts.values()) for a in audits)
        ratios = sorted(a.seconds / a.compile_seconds for a in audits)
        rows.append(
            [
                *(way, str(len(audits)), str(sum(a.calls for a in audits)), str(fired)),
                *(str(_count(audits, kind)) for kind in Kind),
                f"{_count(audits, Kind.PROVED, Kind.PROVED_WITHIN) / max(fired, 1):.1%}",
                f"{ratios[len(ratios) // 2]:.1f}" if ratios else "",
            ]
        )
    return _table(head, rows)


def _open(found: Found) -> str:
    seen: dict[tuple[str, str, str, str], Counter[str]] = {}
    for name, ways in found.items():
        for way, audit in ways.items():
            for step, kind, reason in audit.open:
                seen.setdefault((kind, way, step, reason), Counter())[name] += 1
    rows = [
        [kind, way, f"`{step}`", _cell(reason), str(models.total()), ", ".join(models)]
        for (kind, way, step, reason), models in sorted(seen.items(), key=lambda item: -item[1].total())
    ]
    return _table(["verdict", "pipeline", "step", "reason", "steps", "models"], rows) if rows else "None."


def _models(found: Found) -> str:
    rows = []
    for name, ways in found.items():
        row = [name]
        for way in WAYS:
            audit = ways.get(way)
            if audit is None or audit.failure is not None:
                row.append("" if audit is None else "gives up")
                continue
            kinds = [(Kind.PROVED, Kind.PROVED_WITHIN), (Kind.ROUNDING,), (Kind.UNDECIDED,), (Kind.REFUTED,)]
            row.append(" / ".join(str(_count([audit], *k)) for k in kinds) + f" {_cell(audit.numbers)}")
        rows.append(row)
    return _table(["model", *WAYS], rows)


def _failures(found: Found) -> list[str]:
    failures: dict[tuple[str, str], list[str]] = {}
    for name, ways in found.items():
        for way, audit in ways.items():
            if audit.failure is not None:
                failures.setdefault((way, _cell(audit.failure)), []).append(name)
    rows = [[way, text, ", ".join(names)] for (way, text), names in failures.items()]
    return ["## Failures of compilers", _table(["pipeline", "message", "models"], rows)] if rows else []


def _cell(text: str) -> str:
    return (text if len(text) < 200 else text[:197] + "…").replace("|", "\\|").replace("<", "&lt;")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
