"""Writes docs/matrix.md. Run by ``make docs``; by hand: ``python -m docs.make_matrix`` (minutes)."""

from __future__ import annotations

import html
import multiprocessing
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from docs.writing import write_whole
from tests.matrix.functions import COLUMNS, FAULTS, Cell, cell
from tests.matrix.models import MODELS

PAGE = Path(__file__).with_name("matrix.md")

INTRODUCTION = """\
# Functions and models

The answer of every public function for every kind of model. `tests/matrix/` checks each cell, and
`python -m docs.make_matrix` writes this page. A cell is a verdict, or the number of [a sentence](#sentences) that names
an alternative. No two cells contradict each other: each pair of programs is known to be equal or different.

* `prove`, `prove_step`, `prove_pass` and `compare` get a pair of equal programs, and one that differs in one parameter:
  *equal / changed*. For `prove_pass`, a right and a wrong pass change that parameter. UNDECIDED is never wrong.
* The programs made by `fuse`, `fold_qat` and `torch.compile(model, backend="foldproof")` give the model's numbers up to
  rounding. `explain` counts the remaining normalisations.
* `audit` is REFUTED if a released compiler is wrong, with the name of the pass if it is one pass;
  [the reasons](#wrong-answers-of-compilers) are below.
* `–` marks cells left out to save time. Audits are made of the models in their table.

[Verdicts](verdicts.md) explains PROVED, ROUNDING, UNDECIDED and REFUTED.
"""


def shown(cell: Cell) -> str:
    """A cell in words."""
    if cell.failed:
        return "a bug of foldproof"
    if cell.refused:
        return cell.refused
    kinds = " / ".join(str(kind) for kind in (cell.equal, cell.changed) if kind is not None)
    numbers = "" if kinds or cell.same is None else "same numbers" if cell.same else "other numbers"
    return ", ".join(part for part in (kinds, numbers, cell.note) if part)


def sentence(cell: Cell) -> str:
    """The reason why a function refuses a model, without the folders of temporary files."""
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "", cell.refused)


def page(cells: Mapping[tuple[str, str], Cell]) -> str:
    """The whole page; ``cells`` by the names of model and function."""
    sentences = list(dict.fromkeys(sentence(one) for one in cells.values() if one.refused))
    numbers = {text: f"[{i}](#sentences)" for i, text in enumerate(sentences, 1)}

    def text(model: str, function: str) -> str:
        one = cells.get((model, function))
        return "–" if one is None else numbers.get(sentence(one)) or shown(one)

    audits = [function for function in COLUMNS if function.startswith("audit")]
    parts = [INTRODUCTION]
    for title, functions in (
        ("Folding, proofs and comparisons", [f for f in COLUMNS if f not in audits]),
        ("Audits", audits),
    ):
        lines = [["model", *functions], ["---"] * (1 + len(functions))]
        models = [model for model in MODELS if any((model, function) in cells for function in functions)]
        lines += [[model, *(text(model, function) for function in functions)] for model in models]
        parts.append(f"## {title}\n\n{_table(lines)}\n")
    parts.append(
        "## Sentences\n\n" + "".join(f"{i}. {html.escape(s, quote=False)}\n" for i, s in enumerate(sentences, 1))
    )
    if FAULTS:
        told = "".join(f"* {function} of {model}: {reason}\n" for (model, function), reason in FAULTS.items())
        parts.append(f"## Wrong answers of compilers\n\n{told}")
    return "\n".join(parts)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(model: str) -> dict[tuple[str, str], Cell]:
    return {(model, f): cell(f, MODELS[model]) for f, models in COLUMNS.items() if model in models}


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        cells = {key: one for row in pool.map(_row, MODELS) for key, one in row.items()}
    write_whole(PAGE, page(cells))


if __name__ == "__main__":
    main()
