"""The JSON of a proof with everything that pages draw: the graphs of both programs."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from foldproof.graph.diff import diff_graphs, label_by_content
from foldproof.graph.view import view_graph
from foldproof.log import log_caught
from foldproof.program.export import export_module
from foldproof.verdict import Verdict


def prove_document(verdict: Verdict, before: Any, after: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict's JSON, with the graphs of both programs if they have any or can be exported."""
    first, second = _program(before, args, kwargs), _program(after, args, kwargs)
    marked: tuple[Collection[fx.Node], Collection[fx.Node]] = ((), ())
    if first is not None and second is not None:
        diff = diff_graphs(label_by_content(first), label_by_content(second))
        marked = diff.only_before, diff.only_after
    drawn = [p and view_graph(p, differs=nodes).to_dict() for p, nodes in zip((first, second), marked)]
    return verdict.to_dict() | {"command": "prove", "graphs": dict(zip(("before", "after"), drawn))}


def _program(program: Any, args: Any, kwargs: Mapping[str, Any]) -> ExportedProgram | fx.GraphModule | None:
    if isinstance(program, nn.Module) and not isinstance(program, fx.GraphModule):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = export_module(program, args, kwargs)
        except Exception as error:
            log_caught(error, "exporting a program for its picture")
            return None  # the picture is no part of the proof
    return program if isinstance(program, (ExportedProgram, fx.GraphModule)) else None
