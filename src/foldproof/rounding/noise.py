"""Monte Carlo arithmetic: a float64 run with every operator's result perturbed within its own rounding.

The movement of the outputs estimates the distance of two correct implementations (Parker, Monte Carlo Arithmetic,
1997). Worst-case bounds cannot: they grow with every layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.operators import define_foreach, is_draw, writes_result
from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.bound import bound_error, rounded_results
from foldproof.rounding.complex import draw_noise, has_bound, involves_complex
from foldproof.rounding.float64 import COUNTING, Float64, map_leaves
from foldproof.rounding.operands import Operands
from foldproof.rounding.parts import compute_in_parts
from foldproof.torch_internals import has_decomposition, tree_flatten, tree_leaves, tree_unflatten

aten = torch.ops.aten
_BY_STRIDES = (aten.as_strided.default, aten.as_strided_copy.default)
"""Operators that show memory as it is laid out, which may differ in float64."""

_PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
}

WIDE_DTYPES = (torch.float64, torch.complex128)

BLOCK = 1 << 15
"""Elements that are perturbed at a time: a quarter of a megabyte, which stays in a cache."""


class Noise(Float64):
    """While active, compute every operator in float64, and perturb its result by up to ``amplitude`` error bounds.

    ``operands`` gives the errors of operands of float32 products, where these are rounded first (to TF32, say). While
    ``active`` is False, nothing is perturbed. ``unknown`` collects the operators without a known error bound.
    """

    def __init__(self, generator: torch.Generator, amplitude: float = 1.0, operands: Operands | None = None) -> None:
        super().__init__()
        self.active = True
        self.unknown: set[str] = set()
        self._generator = generator
        self._amplitude = amplitude
        self._operands = operands
        self._counts = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.active or is_draw(func):
            return super().__torch_dispatch__(func, types, args, kwargs)
        rounding, foreach, self._counts = find_rounding(func), define_foreach(func), func in COUNTING
        if foreach is not None:
            with self:
                return foreach(*args, **kwargs)
        if rounding is None and has_decomposition(func):
            with self:  # perturb its parts
                return func.decompose(*args, **kwargs)
        if func in _PRODUCTS and self._operands is not None and self.dtype == torch.float32:
            args = list(args)
            for i in _PRODUCTS[func]:
                args[i] = self._moved(args[i].double(), self._operands(func, args[i].double()))
            args = tuple(args)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.numel()]
        if not any(x.dtype in WIDE_DTYPES for x in results) and rounding is not Rounding.PARTS:
            return out
        is_complex = involves_complex(results, args)
        if is_complex and not has_bound(func, rounding is Rounding.EXACT):
            self.unknown.add(str(func))
            return out
        if rounding is None or func in _BY_STRIDES:
            self.unknown.add(str(func))
        if writes_result(func) and rounding is not Rounding.EXACT:
            # The old contents are gone: only the result's own rounding is known.
            if results[0].dtype in WIDE_DTYPES:
                results[0].copy_(self._moved(results[0], results[0].abs() * torch.finfo(self.dtype).eps))
            return out
        if rounding is Rounding.PARTS:
            if not compute_in_parts(self, func, out, args, kwargs):
                self.unknown.add(str(func))
            return out
        rounded = rounded_results(func, out, self._widen(args), self._widen(kwargs))
        leaves, spec = tree_flatten(out)
        return tree_unflatten(
            [y if x is None else self._rounded(x, size) for y, (x, size) in zip(leaves, rounded)], spec
        )

    def _widen(self, x: Any) -> Any:
        return super()._widen(x if self._counts else map_leaves(self._number, x))

    def _number(self, x: Any) -> Any:
        """Perturb a Python number that float32 does not hold, because kernels round it."""
        if self.active and type(x) is float and x != float(torch.tensor(x, dtype=torch.float32)):
            return x * (1 + 2.0**-24 * float(torch.rand((), generator=self._generator) * 2 - 1))
        return x

    def _rounded(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Perturb a result within its error bound, block by block: tensors of a large one's size cost more to allocate
        than to compute."""
        if not x.is_contiguous() or (size is not None and not (size.is_contiguous() and size.shape == x.shape)):
            return self._moved(x, self._bound(x, size))
        moved = x.clone()
        parts = moved.view(-1).split(BLOCK)
        sizes = [None] * len(parts) if size is None else size.view(-1).split(BLOCK)
        for part, one in zip(parts, sizes):
            part.add_(self._noise(part, self._bound(part, one)))
        return moved

    def _bound(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Return the error bounds of a result, or of a part of it."""
        return bound_error(x, size, self.dtype)

    def _moved(self, x: Tensor, bound: Tensor) -> Tensor:
        # Keep the memory layout of x, on which views depend.
        return x.clone().add_(self._noise(x, bound))

    def _noise(self, x: Tensor, bound: Tensor) -> Tensor:
        noise = draw_noise(x, self._generator)
        return noise.to(bound.device).mul_(bound.nan_to_num(0.0, 0.0, 0.0)).mul_(self._amplitude)
