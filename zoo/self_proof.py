"""Equivalence of PyTorch models, their exported programs and decompositions, with a wrong program as a control."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

import foldproof
from foldproof.verdict import Difference, Kind, Verdict
from zoo.architecture import Architecture, Family
from zoo.statistics import sensitivity


@dataclass(frozen=True)
class SelfProof:
    """The results of one architecture.

    ``operators`` counts the operator calls of the exported program and of its decomposition (None if PyTorch makes
    none). ``decomposed`` compares the two, ``exported`` the model with its program. ``functional`` exists if the first
    is no proof, and compares the program with the result of ``run_decompositions({})``. ``sensitivity`` is the relative
    change of the outputs by other inputs.
    """

    name: str
    family: Family
    operators: tuple[int, int | None]
    decomposed: Verdict
    functional: Verdict | None
    exported: Verdict
    sensitivity: float


def prove_itself(architecture: Architecture, seed: int = 0) -> SelfProof:
    """Export and decompose a model of the zoo, and compare each form with the previous one."""
    sample = architecture.build()
    model, inputs = sample.model, sample.inputs
    with quietly():
        program = torch.export.export(model, inputs)
        functional = None
        try:
            core = program.run_decompositions()
        except Exception as error:
            core, decomposed = None, _no_decomposition(error)
        else:
            decomposed = foldproof.prove(program, core, inputs, seed=seed)
        if decomposed.proof is None:
            functional = foldproof.prove(program, program.run_decompositions({}), inputs, seed=seed)
        return SelfProof(
            architecture.name,
            architecture.family,
            operators=(operators(program), None if core is None else operators(core)),
            decomposed=decomposed,
            functional=functional,
            exported=foldproof.prove(model, program, inputs, seed=seed),
            sensitivity=sensitivity(model, inputs, architecture.redraw(1)),
        )


def refute_spoilt(architecture: Architecture, seed: int = 0) -> Verdict:
    """Compare an exported model of the zoo with a program that is wrong on purpose: see `spoilt`."""
    sample = architecture.build()
    with quietly():
        program = torch.export.export(sample.model, sample.inputs)
        return foldproof.prove(program, spoilt(program), sample.inputs, seed=seed)


@contextmanager
def quietly() -> Iterator[None]:
    """Run without gradients and warnings."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside PyTorch and transformers
        yield


def operators(program: ExportedProgram) -> int:
    """The number of operator calls in the program's graph."""
    return sum(isinstance(node.target, torch._ops.OpOverload) for node in program.graph.nodes)


def spoilt(program: ExportedProgram) -> ExportedProgram:
    """A copy in which the first floating-point value computed from the input, x, is replaced by x + x².

    A comparison that can't tell it from the original, for example because signals vanish on the way, is worth nothing.
    """
    wrong = copy.deepcopy(program)
    graph = wrong.graph_module.graph
    placeholders = graph.find_nodes(op="placeholder")
    specs = zip(placeholders, program.graph_signature.input_specs, strict=True)
    reached = {node for node, spec in specs if spec.kind is InputKind.USER_INPUT}
    for node in graph.nodes:
        if reached.isdisjoint(node.all_input_nodes):
            continue
        reached.add(node)
        if _is_float(node):
            with graph.inserting_after(node):
                square = graph.call_function(torch.ops.aten.addcmul.default, (node, node, node))
            node.replace_all_uses_with(square, delete_user_cb=lambda user: user is not square)
            return wrong
    raise ValueError("no floating-point value is computed from the input")


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point()


def _no_decomposition(error: Exception) -> Verdict:
    """UNDECIDED, because PyTorch failed to make a second program."""
    message = str(error).strip().splitlines()[0]
    found = re.search(r"%(\w+) .*target=torch\.ops\.([\w.]+)", str(error))
    at = Difference(found[1], found[2], None) if found else None
    return Verdict(Kind.UNDECIDED, f"run_decompositions() raises {type(error).__name__}: {message}", difference=at)
