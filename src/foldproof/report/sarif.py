"""SARIF 2.1.0 (OASIS): REFUTED and UNDECIDED verdicts at lines of the model's own code."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any
from urllib.parse import quote

from foldproof.report.document import Document, validated
from foldproof.report.findings import Finding, findings, place_of_test

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULES = {
    "REFUTED": (
        "error",
        "Two programs that should be the same function differ, as a counterexample shows.",
        "The message has the values at the element that differs most. The JSON of the result has the inputs. Run"
        " foldproof report on it for the graphs of both programs.",
    ),
    "UNDECIDED": (
        "warning",
        "The equivalence of two programs could not be decided.",
        "The message has the reason: an operator without a rule, a program that does not run, or a difference that"
        " rounding may or may not explain. Nothing is known about these programs.",
    ),
}
"""Level, description and help of each kind of result. Identifiers are stable: code hosts match results by them."""

UNKNOWN_FILE = "unknown"
"""The place of a result without a file, since code hosts refuse a log with a result that has no place."""


def sarif(document: Document) -> str:
    """The refuted and undecided parts of a result as a SARIF log; of tests that passed, none.

    A test passes with a refuted verdict if that is what it expects.

    Raises:
        FoldproofError: ``document`` does not conform to the schema.
    """
    passed = {
        place_of_test(one["test"]) for one in validated(document).get("outcomes", ()) if one["outcome"] == "passed"
    }
    found = [one for one in findings(document) if one.kind in RULES and (one.group, one.name) not in passed]
    rules = [
        {
            "id": kind,
            "name": kind.capitalize(),
            "shortDescription": {"text": text},
            "fullDescription": {"text": f"{text} {more}"},
            "help": {"text": more},
            "defaultConfiguration": {"level": level},
            "properties": {"precision": "very-high", "tags": ["correctness"]},
        }
        for kind, (level, text, more) in RULES.items()
    ]
    driver = {"name": "foldproof", "version": document.get("foldproof", "unknown"), "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": [_result(one) for one in found]}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(one: Finding) -> dict[str, Any]:
    uri = _uri(one.file or UNKNOWN_FILE)
    known = "\n".join([one.kind, one.group, one.name, uri])  # no line: code above may grow
    return {
        "ruleId": one.kind,
        "ruleIndex": list(RULES).index(one.kind),
        "level": RULES[one.kind][0],
        "message": {"text": f"{one.name}: {one.text}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(one.line, 1)}}}
        ],
        "partialFingerprints": {"foldproofResult/v1": hashlib.sha256(known.encode()).hexdigest()},
    }


def _uri(file: str) -> str:
    """A URI relative to the working folder if the file is below it, as code hosts expect."""
    if os.path.isabs(file):
        relative = os.path.relpath(file)
        return f"file://{quote(file)}" if relative.startswith(os.pardir) else quote(relative.replace(os.sep, "/"))
    return quote(file)
