"""References that can't be exported: their operators, recorded as they run at some inputs.

A branch that data decides, or a loop that ends by a value, has no graph for all inputs. At given inputs it runs a row
of operators all the same, and these have a float64 result and a noise floor. Regions under autocast are such, too: what
they cast is recorded as casts. A recording holds for the way that these inputs take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from foldproof.comparison.state import State, separate
from foldproof.errors import FoldproofError
from foldproof.program.export import export_module
from foldproof.program.state import copied
from foldproof.torch_internals import record_operators, tree_flatten, tree_leaves, tree_unflatten


class _Reading(TorchFunctionMode):
    """While active, no tensor becomes an array; ``numbers`` has the floats that are read from tensors.

    They decide the way that a program takes. A program that computes with them has a result that is not recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[float] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.numpy, Tensor.__array__):
            raise FoldproofError("it computes with arrays")
        out = func(*args, **(kwargs or {}))
        if func in (Tensor.item, Tensor.tolist, Tensor.__float__):
            self.numbers |= {x for x in tree_leaves(out) if isinstance(x, float)}
        return out


class _Recorded(nn.Module):
    """The operators that ``module`` runs at these inputs, called as the module is."""

    def __init__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
        self._leaves: list[Any] = []

        def run(*tensors: Tensor) -> list[Tensor]:
            given = iter(tensors)
            args, kwargs = tree_unflatten([next(given) if isinstance(x, Tensor) else x for x in leaves], spec)
            self._leaves, self._spec = tree_flatten(module(*args, **kwargs))
            return [x for x in self._leaves if isinstance(x, Tensor)]

        with _Reading() as reading:
            self.operators = record_operators(run, [x for x in leaves if isinstance(x, Tensor)])
        used = {x for n in self.operators.graph.nodes for x in tree_leaves((n.args, n.kwargs)) if isinstance(x, float)}
        if used & reading.numbers:
            raise FoldproofError("it computes with a number that it reads from a tensor")
        self._leaves = [None if isinstance(x, Tensor) else (x,) for x in self._leaves]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        with fx.traceback.preserve_node_meta():  # the lines of the module's source, not of the recording's
            made = iter(fx.Interpreter(self.operators).run(*tensors))
        return tree_unflatten([next(made) if x is None else x[0] for x in self._leaves], self._spec)


def record(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ExportedProgram:
    """Return the operators that a call runs, in a row.

    Raises:
        FoldproofError: what it computes is not in its operators, or it writes to its state.
        Exception: the call fails under a recorder.
    """
    args, kwargs = copied((tuple(args), dict(kwargs)))
    own = separate(module)
    state = State(own)
    with torch.no_grad():
        program = export_module(_Recorded(own, args, kwargs), args, kwargs)
    if state.read()[1]:
        raise FoldproofError("it writes to its state")
    return program
