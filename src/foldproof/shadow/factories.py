"""Tensors that a program makes from nothing, or from constants alone, and that have to be shadows all the same."""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines the operators
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from foldproof.shadow.draw import Draw
from foldproof.shadow.registry import RULES
from foldproof.shadow.tensor import Shadow, no_rule
from foldproof.shadow.undecided import Undecided

aten = torch.ops.aten
decomposed = torch.ops.quantized_decomposed

_EMPTY = {aten.empty.memory_format, aten.empty_strided.default}
_DEQUANTIZE = {
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_channel.default,
}


class Factories(TorchDispatchMode):
    """While active, new empty and zero tensors are shadows, so that in-place writes into them keep what is known.

    Uninitialised memory gets random residues: nothing may depend on it. Whole numbers that are dequantized are exact
    constants, and so is what they stand for, which float32 would round.
    """

    def __init__(self, draw: Draw) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw = draw

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DEQUANTIZE and not isinstance(args[0], Shadow):
            return func(Shadow(args[0], self._draw.constant(args[0])), *args[1:], **(kwargs or {}))
        made = func(*args, **(kwargs or {}))
        zero = func is aten.zeros.default or (func is aten.full.default and args[1] == 0)
        if not zero and func not in _EMPTY:
            return made
        if type(made) is not Tensor or not made.dtype.is_floating_point:
            return made
        if zero:
            return Shadow(made, self._draw.constant(made))
        return Shadow(made.zero_(), self._draw.variable(made, data=True))


class Deterministic(TorchDispatchMode):
    """While active, operators that draw random numbers are undecided: a proof would speak of what was drawn.

    What no dispatch mode sees (in custom operators, Python or numpy) moves a generator's state.

    Raises (from any operator, or at the end):
        Undecided: it is random.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Deterministic:
        self._state = _generators()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        if raised[0] is None and self._state != _generators():
            raise Undecided("the program draws random numbers, in Python or inside of a custom operator")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and func not in RULES:
            raise no_rule(func)
        return func(*args, **(kwargs or {}))


def _generators() -> bytes:
    """The states of the generators on the CPU."""
    numpy = sys.modules.get("numpy")
    return pickle.dumps((torch.get_rng_state().tolist(), random.getstate(), numpy and numpy.random.get_state()))
