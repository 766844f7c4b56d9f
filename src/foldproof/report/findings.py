"""Findings of a result in a form for other tools: a name, a verdict, a text and a source line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldproof.report.document import Document


@dataclass(frozen=True)
class Finding:
    """A verdict at one place: a line of the model's own code, else the first of the file that it was made by.

    ``file`` is empty if no file is known at all.
    """

    name: str
    group: str
    kind: str
    text: str
    seconds: float
    file: str = ""
    line: int = 1


def findings(document: Document) -> list[Finding]:
    """List all verdicts: of rewrites, of passes that changed a graph, and of the whole. Declined folds have none."""
    return list(_findings(document))


def _findings(document: Document) -> Iterator[Finding]:
    command = document["command"]
    subject = document.get("subject", command)
    home = _file_of(subject)
    for row in document.get("tests", ()):
        place, name = place_of_test(row["test"])
        file = row["test"].partition("::")[0]
        yield _finding(name, place, row["verdict"], (row["verdict"]["difference"] or {}).get("source"), file)
    for row in document.get("rewrites", ()):
        yield _finding(
            f"{row['reported']} into {row['result']}", f"{command}.rewrites", row["verdict"], row["source"], home
        )
    for step in document.get("steps", ()) if command == "audit" else ():
        if step["fired"]:
            place = ".".join(["audit", document["compiler"], *step["phase"].split("/")]).rstrip(".")
            yield _finding(step["name"], place, step["verdict"], step.get("source"), home)
    whole = {"prove": document, "audit": (document.get("end_to_end") or {}).get("verdict")}
    verdict = whole.get(command, document.get("verdict"))
    if verdict is not None:
        yield _finding(subject, command, verdict, (verdict["difference"] or {}).get("source"), home)


def place_of_test(test: str) -> tuple[str, str]:
    """Return the group and the name of a test."""
    file, _, name = test.partition("::")
    return ".".join(["pytest", *file.removesuffix(".py").split("/")]), name or file


def _file_of(subject: str) -> str:
    """Return the file that a SPEC names; that of a module in the working folder, and "" for any other module."""
    place, colon, _ = subject.rpartition(":")
    if not colon or place.endswith(".py"):
        return place or (subject if Path(subject).suffix else "")
    file = Path(*place.split(".")).with_suffix(".py")
    return file.as_posix() if file.is_file() else ""


def _finding(name: str, group: str, verdict: Mapping[str, Any], source: str | None, home: str) -> Finding:
    file, _, line = (source or "").rpartition(":")
    known = bool(file) and line.isdigit()
    text = verdict["reason"]
    shown = verdict["counterexample"]
    if shown and shown["difference"]:
        value = shown.get("name") or f"output {shown['output']}"
        text += (
            f"; counterexample: {value} at {shown['index']} is {shown['before']} before and"
            f" {shown['after']} after, where rounding explains {shown['floor']}"
        )
    return Finding(name, group, verdict["kind"], text, verdict["seconds"], *((file, int(line)) if known else (home, 1)))
