"""Migration of results written by foldproof 0.1 (version 1 of the format) to version 2.

Version 1 stated the claim of a verdict in a sentence. The sentence stays. The names of varied and held values were not
recorded, so their lists are empty.
"""

from __future__ import annotations

from typing import Any

_RENAMED = {"opaque_evaluations": "evaluations", "opaque": "uninterpreted", "branch": "branching"}


def migrate(document: Any) -> Any:
    """A copy of a version 1 result, or of a part of one, as version 2."""
    if isinstance(document, list):
        return [migrate(x) for x in document]
    if not isinstance(document, dict):
        return document
    out = {name: migrate(x) for name, x in document.items()}
    if "schema" in out:
        out["schema"] = 2
    if "guilty" in out:
        out["refuted"] = out.pop("guilty")
    return _migrate_verdict(out) if "quantified" in out and "witness" in out else out


def _migrate_verdict(old: dict[str, Any]) -> dict[str, Any]:
    verdict = dict(old)
    words, shown = verdict.pop("quantified"), verdict.pop("witness")
    shapes: list[str] = []
    if verdict["proof"]:
        proof = {_RENAMED.get(name, name): x for name, x in verdict["proof"].items()}
        shapes = proof.pop("shapes")
        verdict["proof"] = proof | {"attempts": 1}
    if verdict["rounding"]:
        rounding = dict(verdict["rounding"])
        ratio = rounding.pop("ratio")
        verdict["rounding"] = rounding | {"sigma": ratio if rounding["sigma"] is None else rounding["sigma"]}
    verdict["claim"] = _claim(words, shapes) if words else None
    verdict["counterexample"] = shown
    if verdict["difference"]:
        verdict["difference"] = verdict["difference"] | {"after": None}
    verdict["evidence"] = list(_evidence(verdict))
    return verdict


def _claim(words: str, shapes: list[str]) -> dict[str, Any]:
    scope = "point" if "witness" in words else "tried" if "tried" in words or "evaluations" in words else "all"
    return {
        "scope": scope,
        "text": words.replace("the witness below", "the counterexample below"),
        "is_general": words == "all inputs and all parameters",
        "inputs": [],
        "parameters": [],
        "held": [],
        "derived": [],
        "choices": [],
        "uncovered": [],
        "differs_elsewhere": False,
        "local_bounds": "the bounds are for" in words,
        "points": 0,
        "shapes": shapes,
    }


def _evidence(verdict: dict[str, Any]) -> list[dict[str, str]]:
    """The text of a verdict's evidence, for pages."""
    out = []
    claim, proof = verdict["claim"], verdict["proof"]
    if claim is not None and claim["scope"] != "point":
        out.append(("holds for", claim["text"]))
    if proof:
        out.append(("chance of being wrong", f"below 2^{round(proof['log2_error'])}"))
    out += [("approximation", f"{step['name']}: within {step['bound']:.3g}") for step in verdict["steps"]]
    out += [("note", note) for note in verdict["notes"]]
    return [{"label": label, "text": text} for label, text in out]
