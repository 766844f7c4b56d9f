"""Monte Carlo arithmetic: a program in float64, every operator's result moved at random within its own rounding.

How far the outputs move tells how far rounding may drive two correct implementations apart (Parker, Monte Carlo
Arithmetic, 1997); worst-case bounds, which grow with every layer, can't.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from foldproof.operators import bind_arguments, writes_result
from foldproof.rounding.bound import error_bound
from foldproof.rounding.magnitude import RULES, is_exact
from foldproof.rounding.truth import Float64

aten = torch.ops.aten
_ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
)
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

    ``dtype`` says in which type the program itself holds the result: whoever runs the program keeps it up to date.
    ``operands`` is the unit roundoff to which operands of products are rounded first, where float32 products are
    allowed to be less precise (TF32, bfloat16), else 0. Nothing is moved while ``active`` is False. ``unknown``
    collects operators of which no error bound is known.
    """

    def __init__(self, generator: torch.Generator, amplitude: float = 1.0, operands: float = 0.0) -> None:
        super().__init__()
        self.dtype = torch.float32
        self.active = True
        self.unknown: set[str] = set()
        self._generator = generator
        self._amplitude = amplitude
        self._operands = operands

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.active:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if func in _ATTENTION:
            return self._attention(func, args, kwargs)
        if func not in RULES and not is_exact(func) and func._can_decompose():
            with self:  # its parts are moved
                return func.decompose(*args, **kwargs)
        if func in _PRODUCTS and self._operands and self.dtype == torch.float32:
            args = list(args)
            for i in _PRODUCTS[func]:
                args[i] = self._moved(args[i].double(), args[i].abs().double() * self._operands)
            args = tuple(args)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if func is aten.as_strided.default or (isinstance(first, Tensor) and first.is_complex()):
            self.unknown.add(str(func))  # memory is laid out otherwise in float64; of complex numbers no bound is known
        if not isinstance(first, Tensor) or first.dtype != torch.float64 or not first.numel():
            return out
        if writes_result(func):
            # What was there before is gone: the result's own rounding is all that can be told.
            first.copy_(self._moved(first, first.abs() * torch.finfo(self.dtype).eps))
            return out
        wide_args, wide_kwargs = self._widen(args), self._widen(kwargs)
        bound, known = error_bound(func, first, wide_args, wide_kwargs, self.dtype)
        if not known:
            self.unknown.add(str(func))
        if bound is None:
            return out
        moved = self._moved(first, bound)
        if not isinstance(out, (tuple, list)):
            return moved
        rest = tree_map(self._rounded, tuple(out[1:]))
        return type(out)((moved, *rest)) if type(out) in (tuple, list) else (moved, *rest)

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

    def _rounded(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float64:
            return x
        return self._moved(x, x.abs() * torch.finfo(self.dtype).eps)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """By its parts, each of which is moved."""
        given = bind_arguments(func, args, kwargs)
        mask = given.get("attn_mask", given.get("attn_bias"))
        with self:
            out, _ = aten._scaled_dot_product_attention_math.default(
                *(given[n] for n in ("query", "key", "value")),
                attn_mask=None if mask is None else mask.clone(),
                is_causal=given.get("is_causal", False),
                scale=given.get("scale"),
            )
        like = func(*self._widen(args), **self._widen(kwargs))
        like[0].copy_(out)
        return like
