"""The tensors that a program reads while it runs on shadows: the given leaves, and its own tensors beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.program import Program
from foldproof.proof.obligation import Tensors
from foldproof.shadow import Shadow
from foldproof.shadow.operands import iterate
from foldproof.torch_internals import DispatchMode


class Reads(DispatchMode):
    """While active, record every ordinary tensor that an operator is given.

    A program runs on leaves in place of its own. It may still reach its own tensors, through a closure over the module
    or an object that refers to it; these keep their values for any leaves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._given: set[int] = set()
        self._memory: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in iterate((args, kwargs)):
            if isinstance(x, Tensor) and not isinstance(x, Shadow) and x.layout is torch.strided:
                self._given.add(id(x))
                self._memory.add(x.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))

    def of_leaves(self, leaves: Tensors) -> set[str]:
        """Return the names of the ordinary tensors among ``leaves`` that were read."""
        return {name for name, x in leaves.items() if not isinstance(x, Shadow) and id(x) in self._given}

    def beside(self, program: Program, leaves: Tensors) -> set[str]:
        """Return the names of the program's own tensors that were read although ``leaves`` replaced them."""
        given = {_memory(x) for x in leaves.values()}
        own = {name: _memory(leaf.tensor) for name, leaf in program.leaves.items() if leaf.tensor.numel()}
        return {name for name, at in own.items() if at in self._memory and at not in given}


def _memory(x: Tensor) -> int:
    return 0 if isinstance(x, Shadow) or x.layout is not torch.strided else x.untyped_storage().data_ptr()
