"""Writes docs/audit_zoo.md, audit_onnx.md, audit_openvino.md and audit_training.md: audits of compilers on the zoo.

``python -m docs.make_audit_zoo PAGE [MODEL ...]``, where PAGE is the name of one of `PAGES`. Each model is audited
in a process of its own. Results are cached in build/audit_zoo until something they depend on changes. With names, only
those models are audited, in that order; the page shows all results.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import foldproof
from docs.writing import write_whole
from foldproof.verdict import Kind
from zoo.audited import LIMIT, TRIALS, Audited, read
from zoo.commit import name_commit
from zoo.measure import package_version
from zoo.table import ZOO

HERE = Path(__file__).parent
FOUND = HERE.parent / "build" / "audit_zoo"
WORKERS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Page:
    """A page of some of `zoo.audited.WAYS`; ``told`` goes on from the number of models."""

    title: str
    told: str
    ways: tuple[str, ...]
    packages: tuple[str, ...]


PAGES = {
    "audit_zoo": Page(
        "Compilers on the zoo, audited",
        """compiled by four pipelines of released compilers. Every call of a pass was watched, and every call that
        changed a graph was checked; with Inductor, so were the loops that it makes of the graph (lowering), and
        their fusion and order (scheduling).""",
        ("Inductor", "Inductor, freezing", "torchao PTQ", "ExecuTorch XNNPACK"),
        ("torch", "torchao", "executorch", "transformers"),
    ),
    "audit_onnx": Page(
        "ONNX on the zoo, audited",
        """exported to ONNX and loaded by ONNX Runtime. Checked are PyTorch's decompositions, the translation to ONNX,
        each pass of onnxscript that changed the graph, the file, and each level of ONNX Runtime's optimizations.""",
        ("ONNX",),
        ("torch", "onnx", "onnxscript", "onnxruntime", "transformers"),
    ),
    "audit_openvino": Page(
        "OpenVINO on the zoo, audited",
        """compiled for the CPU by OpenVINO. Checked are PyTorch's decompositions, the conversion to OpenVINO, its
        transformations for all devices, and the graph that the CPU plugin makes of the result.""",
        ("OpenVINO",),
        ("torch", "openvino", "transformers"),
    ),
    "audit_training": Page(
        "Training on the zoo, audited",
        """in training mode and compiled by Inductor with their backward. Checked are AOTAutograd's joint graph of
        forward and backward, the passes of that graph, the partitioner, the passes of both halves, their loops
        (lowering), and the fusion and order of these (scheduling). A model that draws random numbers is compiled with
        `fallback_random`, and compared from the same states of the generators.""",
        ("Inductor, training",),
        ("torch", "transformers"),
    ),
}


def main(page: str, *names: str) -> None:
    """Audit the models without a result, then write the page in one go."""
    if page not in PAGES or not ZOO.keys() >= {*names}:
        sys.exit(f"usage: python -m docs.make_audit_zoo {'|'.join(PAGES)} [MODEL ...], with models of zoo.table")
    ways = PAGES[page].ways
    missing = [name for name in names or ZOO if any(r is None for r in results(name, ways).values())]
    with ThreadPoolExecutor(WORKERS) as pool:
        for name in pool.map(partial(measure, ways), missing):
            sys.stderr.write(f"{name}\n")
    found = {name: {way: r for way, r in results(name, ways).items() if r is not None} for name in ZOO}
    write_whole(HERE / f"{page}.md", write(PAGES[page], {name: made for name, made in found.items() if made}))


def results(name: str, ways: Iterable[str]) -> dict[str, Audited | None]:
    """The cached results of a model, by pipeline."""
    return {way: read(FOUND / name / f"{way}.json") for way in ways}


def measure(ways: Sequence[str], name: str) -> str:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "zoo.audited", name, str(folder), *ways]
        settings = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=settings, stdout=log, stderr=log, timeout=10 * LIMIT, check=False)
    return name


Found = dict[str, dict[str, Audited]]


def write(page: Page, found: Found) -> str:
    """The page as Markdown."""
    versions = ", ".join(f"{name} {package_version(name)}" for name in page.packages)
    name = next(name for name, one in PAGES.items() if one is page)
    made = (
        f"`python -m docs.make_audit_zoo {name}` at commit `{name_commit()}`, with foldproof {foldproof.__version__}, "
    )
    made += versions
    told = f"""\
{len(found)} of the zoo's {len(ZOO)} architectures, {page.told} These models have no known faults, so a REFUTED would
be a finding or a false alarm; the goal is no false alarm, at most 2 % of steps UNDECIDED, and at most 0.5 % ROUNDING.
*numbers*: `foldproof.compare` of the compiled model with the original on {TRIALS} inputs. Made by {made}; {WORKERS}
models at a time with one thread each. Ratios are of wall-clock times, and a compiler's first compilation includes its
imports, so they say little. Empty cells were not audited."""
    return (
        "\n\n".join(
            [
                f"# {page.title}",
                "<!-- Written by docs/make_audit_zoo.py, don't edit. -->",
                textwrap.fill(" ".join(told.split()), 120, break_long_words=False, break_on_hyphens=False),
                "## Totals",
                _totals(page.ways, found),
                "## Steps that are not proved",
                _open(found),
                "## Models",
                "Steps that changed a graph: proved (or proved within bounds) / rounding / undecided / refuted, and the"
                " verdict on the numbers.",
                _models(page.ways, found),
                *_failures(found),
            ]
        )
        + "\n"
    )


def _audits(found: Found, way: str) -> list[Audited]:
    return [ways[way] for ways in found.values() if way in ways and ways[way].failure is None]


def _count(audits: Iterable[Audited], *kinds: Kind) -> int:
    return sum(a.verdicts.get(str(kind), 0) for a in audits for kind in kinds)


def _totals(ways: Sequence[str], found: Found) -> str:
    head = ["pipeline", "models", "steps", "changed a graph", *map(str, Kind), "proved", "audit ÷ compile"]
    rows = []
    for way in ways:
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


def _models(ways: Sequence[str], found: Found) -> str:
    rows = []
    for name, made in found.items():
        row = [name]
        for way in ways:
            audit = made.get(way)
            if audit is None or audit.failure is not None:
                row.append("" if audit is None else "gives up")
                continue
            kinds = [(Kind.PROVED, Kind.PROVED_WITHIN), (Kind.ROUNDING,), (Kind.UNDECIDED,), (Kind.REFUTED,)]
            row.append(" / ".join(str(_count([audit], *k)) for k in kinds) + f" {_cell(audit.numbers)}")
        rows.append(row)
    return _table(["model", *ways], rows)


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
