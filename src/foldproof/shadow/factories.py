"""Tensors that a program makes from nothing, or from constants alone, and that have to be shadows all the same."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines the operators
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from foldproof.shadow.draw import Draw
from foldproof.shadow.registry import RULES
from foldproof.shadow.tensor import Shadow, no_rule

aten = torch.ops.aten
decomposed = torch.ops.quantized_decomposed

_EMPTY = {aten.empty.memory_format, aten.empty_strided.default}
_ZERO = {aten.zeros.default}
_DEQUANTIZE = {
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_channel.default,
}


class Factories(TorchDispatchMode):
    """While active, new empty and zero tensors are shadows, so that in-place writes into them keep what is known.

    Uninitialised memory gets random residues: nothing may depend on it. Whole numbers that are dequantized are exact
    constants, and so is what they stand for, which float32 would round. Random numbers have no rule, unless they are
    allowed, as to a pass, which may make example inputs of them.
    """

    def __init__(self, draw: Draw, random: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw, self._random = draw, random

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DEQUANTIZE and not isinstance(args[0], Shadow):
            return func(Shadow(args[0], self._draw.constant(args[0])), *args[1:], **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and func not in RULES and not self._random:
            raise no_rule(func)  # what these numbers do not show, others may
        made = func(*args, **kwargs)
        if func not in _EMPTY and func not in _ZERO:
            return made
        if type(made) is not Tensor or not made.dtype.is_floating_point:
            return made
        made.zero_()
        return Shadow(made, self._draw.constant(made) if func in _ZERO else self._draw.variable(made, data=True))
