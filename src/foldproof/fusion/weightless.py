"""Folds of models without weights: their parameters are on the meta device.

The graph alone decides which folds are possible, and their proofs are for all parameters. Folds are planned and proved
with random weights. The result has none again: each new parameter has a shape and a dtype alone. Where a fold
depends on values, as on the signs of a scale, it is declined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from foldproof.program.exported import ExportedProgramForm
from foldproof.program.weightless import Values
from foldproof.torch_internals import FakeTensor, tree_map

WITHOUT_WEIGHTS = "the parameters have no values: folds were proved for all parameters, and new ones have none, either"


@dataclass(frozen=True)
class Weightless:
    """A ``program`` with random weights in place of those that have no values, by their ``names``."""

    given: ExportedProgram
    program: ExportedProgram
    names: frozenset[str]

    @staticmethod
    def of(program: object) -> Weightless | None:
        """Return the program with random weights; None if it has all its values.

        Raises:
            FoldproofError: whole numbers have no values.
        """
        if not isinstance(program, ExportedProgram):
            return None
        form = ExportedProgramForm(program)
        # Fake tensors are refused: a fold of them with torch 2.13 crashes the process at a later garbage collection.
        if any(isinstance(leaf.tensor, FakeTensor) for leaf in form.leaves.values()):
            return None
        leaves = Values().leaves(form.leaves)
        names = frozenset(name for name, leaf in leaves.items() if leaf.tensor is not form.leaves[name].tensor)
        if not names:
            return None
        drawn = form.with_leaves({name: leaf.tensor for name, leaf in leaves.items()})
        _move(drawn, "meta", "cpu")
        return Weightless(program, drawn, names)

    def restored(self, folded: ExportedProgram) -> ExportedProgram:
        """Return the folded program without values: the given parameters where they stay, and new ones."""
        given = {**self.given.state_dict, **self.given.constants}
        drawn = {**self.program.state_dict, **self.program.constants}
        for home in (folded.state_dict, folded.constants):
            for name, tensor in home.items():
                if isinstance(tensor, Tensor):
                    home[name] = given[name] if drawn.get(name) is tensor else _without_values(tensor)
        _move(folded, "cpu", "meta")
        return folded


def _without_values(tensor: Tensor) -> Tensor:
    made = torch.empty_like(tensor, device="meta")
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _move(program: ExportedProgram, device: str, to: str) -> None:
    """Move the graphs of a program from one device to another."""

    def other(x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device(to) if x.type == device else x
        return x.to(to) if isinstance(x, Tensor) and x.device.type == device else x

    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.args, node.kwargs = tree_map(other, (node.args, node.kwargs))
                node.meta["val"] = tree_map(other, node.meta.get("val"))
            module.recompile()
