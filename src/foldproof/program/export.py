"""Exporting a module for all inputs, of which the given ones are an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.program.state import owned, undone
from foldproof.torch_internals import tree_map


def export_module(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    frozen: list[str] | None = None,
) -> ExportedProgram:
    """Return the `torch.export` program of ``module``, whose Python state is as it was before.

    PyTorch reads two inputs that are one tensor, or an input that is a parameter, as one value of the program, whatever
    later calls give. They are told apart here. The program does not count or remember in Python as the module does: the
    names of what a call sets are added to ``frozen``.

    Raises:
        Exception: PyTorch can't export it.
    """
    given, named = separated(module, args, kwargs or {})
    with undone(module) as changed:
        program = torch.export.export(module, given, named, dynamic_shapes=dynamic_shapes)
    if frozen is not None:
        frozen += changed
    return program


def separated(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Return the inputs with a copy of each tensor that is another input, or one of the module's own."""
    seen = {id(tensor) for _, tensor in owned(module)}

    def separate(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) in seen:
            return x.detach().clone()
        seen.add(id(x))
        return x

    made: tuple[tuple[Any, ...], Any] = tree_map(separate, (tuple(args), dict(kwargs)))
    return made
