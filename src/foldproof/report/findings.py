"""Findings of a result in a form for other tools: a name, a verdict, a text and a source line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from foldproof.report.document import Document


@dataclass(frozen=True)
class Finding:
    """A verdict at one place; ``file`` and ``line`` are empty if no line of the model's own code is known."""

    name: str
    group: str
    kind: str
    text: str
    seconds: float
    file: str = ""
    line: int = 0


def findings(document: Document) -> list[Finding]:
    """List all verdicts: of rewrites, of passes that changed a graph, and of the whole. Declined folds have none."""
    return list(_findings(document))


def _findings(document: Document) -> Iterator[Finding]:
    command = document["command"]
    subject = document.get("subject", command)
    for row in document.get("tests", ()):
        file, _, name = row["test"].partition("::")
        place = ".".join(["pytest", *file.removesuffix(".py").split("/")])
        yield _finding(name or file, place, row["verdict"], (row["verdict"]["difference"] or {}).get("source"))
    for row in document.get("rewrites", ()):
        yield _finding(f"{row['reported']} into {row['result']}", f"{command}.rewrites", row["verdict"], row["source"])
    for step in document.get("steps", ()) if command == "audit" else ():
        if step["fired"]:
            place = ".".join(["audit", document["compiler"], *step["phase"].split("/")]).rstrip(".")
            yield _finding(step["name"], place, step["verdict"], step.get("source"))
    whole = {"prove": document, "audit": (document.get("end_to_end") or {}).get("verdict")}
    verdict = whole.get(command, document.get("verdict"))
    if verdict is not None:
        yield _finding(subject, command, verdict, (verdict["difference"] or {}).get("source"))


def _finding(name: str, group: str, verdict: Mapping[str, Any], source: str | None) -> Finding:
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
    return Finding(name, group, verdict["kind"], text, verdict["seconds"], *((file, int(line)) if known else ()))
