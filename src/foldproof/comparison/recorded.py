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
from foldproof.graph.reads import erase_reads
from foldproof.program.export import export_module
from foldproof.program.state import copied, owned
from foldproof.torch_internals import record_operators, tree_flatten, tree_leaves, tree_map, tree_unflatten


class _Number(float):
    """A float that was read from a tensor, or computed from such, with the ``source`` that it is: a tensor of no
    dimensions, in float64 as Python's floats are."""

    source: Tensor

    @staticmethod
    def of(value: float, source: Tensor) -> _Number:
        made = _Number(value)
        made.source = source
        return made


def _follow(name: str) -> None:
    """Let an operator of `_Number` compute its result's source, too."""
    plain = getattr(float, name)

    def compute(self: _Number, *others: Any) -> Any:
        out = plain(self, *others)  # raises what Python raises, as for a division by 0
        if type(out) is not float:
            return out
        sources = (x.source if isinstance(x, _Number) else x for x in others)
        return _Number.of(out, getattr(self.source, name)(*sources))

    setattr(_Number, name, compute)


_BINARY = ("add", "sub", "mul", "truediv", "pow")
for _name in (*(f"__{n}__" for n in _BINARY), *(f"__r{n}__" for n in _BINARY), "__neg__", "__abs__"):
    _follow(_name)

_TAKE_TENSORS = {
    found
    for name in (
        *(f"__{r}{n}__" for n in _BINARY for r in ("", "r", "i")),
        *("add", "sub", "mul", "div", "true_divide", "multiply", "divide", "subtract", "rsub", "pow"),
        *("where", "masked_fill", "add_", "sub_", "mul_", "div_", "masked_fill_"),
    )
    for owner in (torch, Tensor)
    if (found := getattr(owner, name, None)) is not None
}
"""Functions that take a tensor of no dimensions in place of a number, with the same result."""


class _Reading(TorchFunctionMode):
    """While active, no tensor becomes an array, and a float that is read from a tensor keeps its `_Number.source`.

    ``numbers`` has these floats: they may decide the way that a program takes, but a program that computes with them
    where no tensor may stand has a result that is not recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[float] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.numpy, Tensor.__array__):
            raise FoldproofError("it computes with arrays")
        if func in _TAKE_TENSORS and any(isinstance(x, Tensor) and x.is_floating_point() and x.ndim for x in args):
            args = tuple(x.source if isinstance(x, _Number) else x for x in args)
        out = func(*args, **(kwargs or {}))
        if func in (Tensor.item, Tensor.tolist, Tensor.__float__):
            self.numbers |= {x for x in tree_leaves(out) if isinstance(x, float)}
        return _Number.of(out, args[0].detach().double()) if func is Tensor.item and type(out) is float else out


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
        erase_reads(self.operators)
        used = {x for n in self.operators.graph.nodes for x in tree_leaves((n.args, n.kwargs)) if isinstance(x, float)}
        if used & reading.numbers:
            raise FoldproofError(_COMPUTES)
        self.reads = bool(reading.numbers)
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
        recorded = _Recorded(own, args, kwargs)
        program = export_module(recorded, args, kwargs)
        if state.read()[1]:
            raise FoldproofError("it writes to its state")
        if recorded.reads and not _follows(recorded, own, args, kwargs):
            raise FoldproofError(_COMPUTES)
        state.put_back()
    return program


_COMPUTES = "it computes with a number that it reads from a tensor"


def _follows(recorded: nn.Module, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return True if the recording gives the module's bits at inputs and parameters that are moved a little.

    Both hold the same parameters, which stay moved.

    A number that leaves PyTorch, as ``math.tanh(x.sum().item())`` does, stays what it was when it was recorded.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return x * (1 + 2.0**-10 * torch.rand(x.shape, generator=generator).to(x.device, x.dtype))

    for _, tensor in owned(module):
        if tensor.is_floating_point():
            tensor.copy_(moved(tensor))
    given = tree_map(moved, (tuple(args), dict(kwargs)))
    sides = [tree_leaves(run(*a, **k)) for run in (module, recorded) for a, k in (copied(given),)]
    return all(not isinstance(x, Tensor) or (x.shape == y.shape and torch.equal(x, y)) for x, y in zip(*sides))
