"""The registry of magnitudes, and the share of partial sums in them.

Floating-point operators sum products in an unspecified order. If u is the unit roundoff (half the epsilon) of the
accumulation dtype, an error is about u times the sum of the *magnitudes* Σ|x||w|, however much the result cancels
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1). Adding K terms one after the other also rounds
each partial sum: for terms of one sign, that is a random walk of u·|result|·√(K/3) (Higham and Mary, A New Approach to
Probabilistic Rounding Error Analysis, 2019). A magnitude is the sum of both, in units of u; rounding the result itself
comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from foldproof.torch_internals import OpOverload

Magnitude = Callable[..., Any]
"""A function of an operator's float64 result and its arguments, which returns a tensor of the result's shape.

For an operator with several results it takes their tuple, and returns a tuple: None (or nothing, at the end) stands for
results that are rounded once.
"""

M = TypeVar("M", bound=Magnitude)

MAGNITUDES: dict[OpOverload, Magnitude] = {}


def magnitude(*names: str) -> Callable[[M], M]:
    """Register the decorated function for ATen operators, named as ``sum.dim_IntList``; ``mm`` is ``mm.default``.

    The first line of its docstring appears in docs/operators.md.
    """

    def register(function: M) -> M:
        for operator in find_aten(*names):
            if operator in MAGNITUDES:
                raise ValueError(f"{operator} has a magnitude already")
            MAGNITUDES[operator] = function
        return function

    return register


def find_aten(*names: str) -> list[OpOverload]:
    """Return the ATen operators of these names; a string may hold several names, with spaces between them."""
    found = []
    for name in " ".join(names).split():
        packet, _, overload = name.partition(".")
        found.append(getattr(getattr(torch.ops.aten, packet), overload or "default"))
    return found


def drift(out: Tensor, terms: float) -> Tensor:
    """Return the share of partial sums of ``terms`` terms of one sign: |out|·√(terms/3)."""
    return out.abs().mul_(math.sqrt(max(terms, 0.0) / 3))


SUBNORMAL = 2.0**-126 / 2.0**-24
"""Smallest normal number of float32 in its unit roundoffs: what a term inside an operator loses where it is flushed."""


def absolute(x: Any) -> Any:
    """Return magnitudes of real and complex tensors; anything else unchanged."""
    return x.abs() if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) else x
