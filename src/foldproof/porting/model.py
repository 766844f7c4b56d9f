"""The module whose checkpoint a program reads.

It is the program itself, or the only module that a function reads from outside. So a function adapts a model with
another signature: ``lambda tokens: model(input_ids=tokens).logits``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.program.mirror import captured, rebound
from foldproof.program.modules import with_tensors
from foldproof.program.state import owned, storage_key


@dataclass(frozen=True)
class Model:
    """A program and its module; ``variable`` is the name by which a function knows the module."""

    program: Any
    module: nn.Module
    variable: str = ""

    @property
    def prefix(self) -> str:
        """The beginning of names of the program's leaves that are the module's."""
        return f"{self.variable}." if self.variable else ""

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Model:
        """Return a copy of the program whose module holds other tensors, by its own names."""
        module = with_tensors(self.module, tensors)
        program = rebound(self.program, {self.variable: module}) if self.variable else module
        return Model(program, module, self.variable)

    def persistent(self) -> dict[str, Tensor]:
        """Return the parameters and buffers that are part of the checkpoint, by name."""
        kept = {storage_key(x) for x in self.module.state_dict().values() if isinstance(x, Tensor)}
        return {name: x for name, x in owned(self.module) if storage_key(x) in kept}


def model_of(program: Any, which: str) -> Model:
    """Return the model of a program.

    Raises:
        FoldproofError: it is a function that reads no module, or several.
    """
    if isinstance(program, ExportedProgram):
        program = program.module()
    if isinstance(program, nn.Module):
        return Model(program, program)
    found = {name: x for name, x in captured(program).items() if isinstance(x, nn.Module)} if callable(program) else {}
    if len(found) != 1:
        how = f"reads {' and '.join(sorted(found))}" if found else "reads no module from outside"
        raise FoldproofError(
            f"a conversion is from the checkpoint of one module to that of another, and the {which} is none: it {how};"
            " give an nn.Module, or a function that reads one"
        )
    ((variable, module),) = found.items()
    return Model(program, module, variable)
