"""The JSON of an audit with everything that pages show: graphs, and reproductions of culprits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from foldproof.auditing.codegen import find_differences, write_listing
from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.result import Audit
from foldproof.auditing.step import Step
from foldproof.graph.view import view_graph
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Kind

WHOLE = 80
"""Largest number of nodes of a graph that is drawn whole; of larger graphs, only changed nodes and neighbours are."""


def build_audit_document(found: Audit, saved: Path | None = None) -> dict[str, Any]:
    """Return the audit as JSON, with the graphs before and after each step; ``saved`` is the folder of `Audit.save`."""
    whole = found.to_dict()
    steps = [_build_step(step, told, found, saved) for step, told in zip(found.steps, whole["steps"], strict=True)]
    return whole | {"steps": steps}


def _build_step(step: Step, told: Mapping[str, Any], found: Audit, saved: Path | None) -> dict[str, Any]:
    if not step.fired:
        return dict(told)
    wrong = step.verdict.kind is Kind.REFUTED
    sides = zip((step.change.before, step.change.after), find_differences(step.change))
    drawn = [view_graph(one.graph, differs=nodes, near=WHOLE).to_dict() for one, nodes in sides]
    return dict(told) | {
        "source": step.source,
        "graphs": dict(zip(("before", "after"), drawn)),
        "listing": _write_listing(step, found) if wrong else None,
        "reproduction": _read_saved(step.name, saved) if wrong and saved is not None else None,
    }


def _write_listing(step: Step, found: Audit) -> str:
    given = step.change.inputs
    if given is None:
        given = [x for x in tree_leaves((found.args, found.kwargs)) if isinstance(x, Tensor)]
    return write_listing(step.change, find_inputs(step.change.before, given) or ())


def _read_saved(name: str, folder: Path) -> str | None:
    """Return the reproduction that `Audit.save` wrote for a pass; None if it wrote none."""
    places = [folder / re.sub(r"\W+", "_", name) / "repro.py", folder / "repro.py"]
    return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)
