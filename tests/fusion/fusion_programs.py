"""Helpers of the tests in this folder: the forms of a program, running it, and comparing two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

FORMS: dict[str, Callable[[ExportedProgram], ExportedProgram]] = {
    "training IR": lambda program: program,
    "partly decomposed": lambda program: program.run_decompositions({}),
    "core ATen": lambda program: program.run_decompositions(),
}


def run(program: ExportedProgram, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Return the outputs. A program that changes its buffers changes them here, too."""
    with torch.no_grad():
        return tree_leaves(program.module()(*inputs))


def norms(program: ExportedProgram) -> list[str]:
    """Names of the batch normalisations in the graph."""
    return [node.name for node in program.graph.nodes if "batch_norm" in str(node.target)]


def largest_error(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest difference, relative to the largest value of the output it is in."""
    assert [(t.shape, t.dtype) for t in before] == [(t.shape, t.dtype) for t in after]
    errors = [
        ((a - b).abs().max() / a.abs().max().clamp(min=1e-30)).item()
        for a, b in zip((t.double() for t in before), (t.double() for t in after))
        if a.numel()
    ]
    return max(errors, default=0.0)


def snapshot(program: ExportedProgram) -> tuple[Any, ...]:
    """Describe everything that must not change in a program: code, names, metadata, signature, tensors and values."""
    nodes = [(n.name, n.op, str(n.target), str(n.args), str(n.kwargs), dict(n.meta)) for n in program.graph.nodes]
    tensors = {**program.state_dict, **program.constants}
    state = [(name, id(t), t._version, t.clone() if isinstance(t, Tensor) else t) for name, t in tensors.items()]
    return nodes, str(program.graph_signature), str(program.module_call_graph), state


def assert_unchanged(before: tuple[Any, ...], program: ExportedProgram) -> None:
    *rest, state = before
    *rest_now, state_now = snapshot(program)
    assert rest == rest_now
    for (name, identity, version, value), now in zip(state, state_now, strict=True):
        assert (name, identity, version) == now[:3]
        assert torch.equal(value, now[3])
