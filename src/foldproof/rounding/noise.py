"""Monte Carlo arithmetic: a program in float64, every operator's result moved at random within its own rounding.

How far the outputs move tells how far rounding may drive two correct implementations apart (Parker, Monte Carlo
Arithmetic, 1997); worst-case bounds, which grow with every layer, can't.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.operators import writes_result
from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.bound import bound_errors
from foldproof.rounding.float64 import Float64
from foldproof.rounding.parts import compute_in_parts
from foldproof.torch_internals import has_decomposition, tree_flatten, tree_leaves, tree_map, tree_unflatten

aten = torch.ops.aten
_BY_STRIDES = (aten.as_strided.default, aten.as_strided_copy.default)
"""They show memory as it is laid out, which may be otherwise in float64."""

_PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
}


class Noise(Float64):
    """While active, every operator computes in float64, and its result is moved by up to ``amplitude`` error bounds.

    ``operands`` is the unit roundoff to which operands of products are rounded first, where float32 products are
    allowed to be less precise (TF32, bfloat16), else 0. Nothing is moved while ``active`` is False. ``unknown``
    collects operators of which no error bound is known.
    """

    def __init__(self, generator: torch.Generator, amplitude: float = 1.0, operands: float = 0.0) -> None:
        super().__init__()
        self.active = True
        self.unknown: set[str] = set()
        self._generator = generator
        self._amplitude = amplitude
        self._operands = operands

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.active:
            return super().__torch_dispatch__(func, types, args, kwargs)
        rounding = find_rounding(func)
        if rounding is None and has_decomposition(func):
            with self:  # what it is made of is moved
                return func.decompose(*args, **kwargs)
        if func in _PRODUCTS and self._operands and self.dtype == torch.float32:
            args = list(args)
            for i in _PRODUCTS[func]:
                args[i] = self._moved(args[i].double(), args[i].abs().double() * self._operands)
            args = tuple(args)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.numel()]
        if any(x.is_complex() for x in results):
            self.unknown.add(str(func))  # of complex numbers no bound is known
        if not any(x.dtype == torch.float64 for x in results) and rounding is not Rounding.PARTS:
            return out
        if rounding is None or func in _BY_STRIDES:
            self.unknown.add(str(func))
        if writes_result(func) and rounding is not Rounding.EXACT:
            # What was there before is gone: the result's own rounding is all that can be told.
            results[0].copy_(self._moved(results[0], results[0].abs() * torch.finfo(self.dtype).eps))
            return out
        if rounding is Rounding.PARTS:
            if not compute_in_parts(self, func, out, args, kwargs):
                self.unknown.add(str(func))
            return out
        bounds = bound_errors(func, out, self._widen(args), self._widen(kwargs), self.dtype)
        leaves, spec = tree_flatten(out)
        return tree_unflatten([x if b is None else self._moved(x, b) for x, b in zip(leaves, bounds)], spec)

    def _widen(self, x: Any) -> Any:
        return super()._widen(tree_map(self._number, x))

    def _number(self, x: Any) -> Any:
        """Kernels round a Python number that float32 does not hold."""
        if self.active and type(x) is float and x != float(torch.tensor(x, dtype=torch.float32)):
            return x * (1 + 2.0**-24 * float(torch.rand((), generator=self._generator) * 2 - 1))
        return x

    def _moved(self, x: Tensor, bound: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        moved = noise.to(x.device) * bound * self._amplitude
        # Laid out in memory as x is: views hang on that.
        return x.clone().add_(torch.where(x.isfinite() & moved.isfinite(), moved, 0.0))
