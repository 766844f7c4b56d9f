"""What the JSON of an audit and of a proof needs to be drawn: their graphs, and programs that show what is wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from foldproof.auditing import Audit
from foldproof.auditing.inputs import inputs_for
from foldproof.auditing.listing import differing, listing
from foldproof.auditing.result import Step
from foldproof.graph.diff import diff_graphs, label_by_content
from foldproof.graph.view import view_graph
from foldproof.log import log_caught
from foldproof.verdict import Kind, Verdict

WHOLE = 80
"""Graphs of so many nodes are drawn whole; of larger ones what a pass changed, and its neighbours."""


def audit_document(found: Audit, saved: Path | None = None) -> dict[str, Any]:
    """An audit's JSON, with the graphs before and after each step; ``saved`` is the folder of `Audit.save`."""
    whole = found.to_dict()
    steps = [_step(step, told, found, saved) for step, told in zip(found.steps, whole["steps"], strict=True)]
    return whole | {"steps": steps}


def prove_document(verdict: Verdict, before: Any, after: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's JSON, with the graphs of both programs, where they have any or can be exported."""
    first, second = _program(before, args, kwargs), _program(after, args, kwargs)
    marked: tuple[Collection[fx.Node], Collection[fx.Node]] = ((), ())
    if first is not None and second is not None:
        diff = diff_graphs(label_by_content(first), label_by_content(second))
        marked = diff.only_before, diff.only_after
    drawn = [p and view_graph(p, differs=nodes).to_dict() for p, nodes in zip((first, second), marked)]
    return verdict.to_dict() | {"command": "prove", "graphs": dict(zip(("before", "after"), drawn))}


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


def _program(program: Any, args: Any, kwargs: Mapping[str, Any]) -> ExportedProgram | fx.GraphModule | None:
    if isinstance(program, nn.Module) and not isinstance(program, fx.GraphModule):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(program, tuple(args), dict(kwargs))
        except Exception as error:
            log_caught(error, "exporting a program for its picture")
            return None  # the picture is no part of the proof
    return program if isinstance(program, (ExportedProgram, fx.GraphModule)) else None
