"""An audit's JSON with all that pages draw: its graphs, and programs that show what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from foldproof.auditing.codegen import differing, listing
from foldproof.auditing.inputs import inputs_for
from foldproof.auditing.result import Audit
from foldproof.auditing.step import Step
from foldproof.graph.view import view_graph
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Kind

WHOLE = 80
"""Graphs of so many nodes are drawn whole; of larger ones what a pass changed, and its neighbours."""


def audit_document(found: Audit, saved: Path | None = None) -> dict[str, Any]:
    """An audit's JSON, with the graphs before and after each step; ``saved`` is the folder of `Audit.save`."""
    whole = found.to_dict()
    steps = [_step(step, told, found, saved) for step, told in zip(found.steps, whole["steps"], strict=True)]
    return whole | {"steps": steps}


def _step(step: Step, told: Mapping[str, Any], found: Audit, saved: Path | None) -> dict[str, Any]:
    if not step.fired:
        return dict(told)
    wrong = step.verdict.kind is Kind.REFUTED
    sides = zip((step.change.before, step.change.after), differing(step.change))
    drawn = [view_graph(one.graph, differs=nodes, near=WHOLE).to_dict() for one, nodes in sides]
    return dict(told) | {
        "source": step.source,
        "graphs": dict(zip(("before", "after"), drawn)),
        "listing": _listing(step, found) if wrong else None,
        "reproduction": _saved(step.name, saved) if wrong and saved is not None else None,
    }


def _listing(step: Step, found: Audit) -> str:
    given = step.change.inputs
    if given is None:
        given = [x for x in tree_leaves((found.args, found.kwargs)) if isinstance(x, Tensor)]
    return listing(step.change, inputs_for(step.change.before, given) or ())


def _saved(name: str, folder: Path) -> str | None:
    """The program that `Audit.save` wrote for a pass, if it could write one."""
    places = [folder / re.sub(r"\W+", "_", name) / "repro.py", folder / "repro.py"]
    return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)
