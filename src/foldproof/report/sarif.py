"""SARIF 2.1.0 (OASIS): REFUTED and UNDECIDED verdicts at lines of the model's own code."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from foldproof.report.document import Document, validated
from foldproof.report.findings import Finding, findings

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULES = {
    "REFUTED": ("error", "Two programs that should be the same function differ, as a counterexample shows."),
    "UNDECIDED": ("warning", "The equivalence of two programs could not be decided."),
}


def sarif(document: Document) -> str:
    """The refuted and undecided parts of a result as a SARIF log.

    Raises:
        FoldproofError: ``document`` does not conform to the schema.
    """
    found = [one for one in findings(validated(document)) if one.kind in RULES]
    rules = [
        {"id": kind, "shortDescription": {"text": text}, "defaultConfiguration": {"level": level}}
        for kind, (level, text) in RULES.items()
    ]
    driver = {"name": "foldproof", "version": document.get("foldproof", "unknown"), "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": [_result(one) for one in found]}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(one: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": one.kind,
        "ruleIndex": list(RULES).index(one.kind),
        "level": RULES[one.kind][0],
        "message": {"text": f"{one.name}: {one.text}"},
    }
    if one.file:
        place = {"artifactLocation": {"uri": _uri(one.file)}, "region": {"startLine": one.line}}
        result["locations"] = [{"physicalLocation": place}]
    return result


def _uri(file: str) -> str:
    """A URI relative to the working folder if the file is below it, as code hosts expect."""
    if os.path.isabs(file):
        relative = os.path.relpath(file)
        return f"file://{quote(file)}" if relative.startswith(os.pardir) else quote(relative.replace(os.sep, "/"))
    return quote(file)
