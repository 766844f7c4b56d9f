"""Audits of several SPECs, with a file for each result in a folder: what is there is not computed again."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foldproof.cli.complaint import without_warnings
from foldproof.cli.options import SETTINGS, Settings
from foldproof.cli.output import Output, check_folder, save_json
from foldproof.cli.setup import Setup
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError, brief
from foldproof.log import log_caught
from foldproof.processes import Died, Executor, Processes
from foldproof.verdict import Kind
from foldproof.version import __version__, find_version

Progress = Callable[[int, int | None, str], None]

FAILED, BUG = 2, 70
BY_SEVERITY = (0, Kind.UNDECIDED.exit_code, FAILED, BUG, Kind.REFUTED.exit_code)
"""Exit statuses, the worst last: a wrong pass is what an audit looks for."""


@dataclass(frozen=True)
class Question:
    """An audit to be made: the arguments of the command for one SPEC."""

    spec: str
    setup: Setup
    device: str | None = None

    def place(self, folder: Path) -> Path:
        """Return the file of the result.

        Its name changes with all that is asked, with versions, and with the content of the file that SPEC names; not
        with the files which that one imports.
        """
        named = Path(self.spec if self.spec.endswith(".pt2") else self.spec.rpartition(":")[0])
        content = hashlib.sha256(named.read_bytes()).hexdigest() if named.is_file() else ""
        compiler = self.setup.compiler
        packages = ("torch", *(DECLARED[compiler].packages if compiler in DECLARED else ()))
        asked = [
            self.spec,
            *astuple(self.setup),
            self.device,
            content,
            __version__,
            *map(find_version, packages),
        ]
        code = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        return folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', self.spec).strip('_')[-80:]}-{code}.json"


@dataclass(frozen=True)
class Answer:
    """The exit status of one audit, its conclusion or the reason for its failure, its verdict if there is one, and the
    traceback of an exception in foldproof."""

    status: int
    told: str
    kind: Kind | None = None
    trace: str = ""


def audit_all(
    questions: Sequence[Question], folder: Path, jobs: int, executor: Executor, progress: Progress
) -> list[tuple[Question, Answer]]:
    """Answer all questions, those without a file in ``folder`` in ``jobs`` processes at a time.

    Raises:
        FoldproofError: the folder can't be written, or a file in it is damaged.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    places = {question: question.place(folder) for question in questions}
    answers = {question: _kept(place) for question, place in places.items() if place.is_file()}
    with Processes(jobs, executor) as processes:
        begun = {
            processes.submit(answer, question, place, SETTINGS.get()): question
            for question, place in places.items()
            if question not in answers
        }
        progress(len(answers), len(places), f"auditing in {folder}")
        for future in as_completed(begun):
            try:
                answers[begun[future]] = future.result()
            except Died as error:
                log_caught(error, f"auditing {begun[future].spec}")
                answers[begun[future]] = Answer(BUG, f"failed: {error}, by a crash or because it was killed")
            sys.stderr.write(answers[begun[future]].trace)
            progress(len(answers), len(places), f"audited {begun[future].spec}")
    return [(question, answers[question]) for question in questions]


def worst(answers: Sequence[Answer]) -> int:
    """Return the worst exit status."""
    return max((one.status for one in answers), key=BY_SEVERITY.index)


def answer(question: Question, place: Path, settings: Settings) -> Answer:
    """Audit, and write the result to ``place``; runs in a process of its own."""
    SETTINGS.set(settings)
    try:
        if settings.threads is not None:
            import torch

            torch.set_num_threads(settings.threads)
        with without_warnings():
            return _conclude(_audit(question, place))
    except FoldproofError as error:
        log_caught(error, f"auditing {question.spec}")
        return Answer(FAILED, f"failed: {' '.join(str(error).split())}")
    except Exception as error:
        log_caught(error, f"auditing {question.spec}")
        told = f"failed: {brief(error)}, a bug in foldproof: please report it with the traceback"
        return Answer(BUG, told, trace=traceback.format_exc())


def _audit(question: Question, place: Path) -> dict[str, Any]:
    from foldproof.cli import audits

    found = audits.audit(question.spec, question.setup, lambda *_: None)
    document = audits.document(found, None) | {"subject": question.spec, "foldproof": __version__}
    Output(place).write(partial(save_json, document))
    return document


def _kept(place: Path) -> Answer:
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FoldproofError(f"{place} can't be read as the result of an audit; remove it ({brief(error)})") from error
    if not isinstance(document, dict) or document.get("command") != "audit":
        raise FoldproofError(f"{place} is not the result of an audit; remove it")
    return _conclude(document)


def _conclude(document: dict[str, Any]) -> Answer:
    kind = Kind(document["kind"])
    return Answer(kind.exit_code, document["conclusion"], kind)
