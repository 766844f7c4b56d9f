"""The registry of magnitudes, and what partial sums add to them.

Floating-point operators compute sums of products whose order is nobody's promise. If u is the unit roundoff (half the
epsilon) of the type in which they accumulate, an error is about u times the sum of the *magnitudes* Σ|x||w|, whatever
cancels in the result (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1). Adding K terms one after the
other also rounds each partial sum: where the terms have one sign, that is a random walk of u·|result|·√(K/3) (Higham
and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019). A magnitude is the sum of both, in units of u;
rounding the result itself comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from foldproof.torch_internals import OpOverload

Magnitude = Callable[..., Any]
"""Takes an operator's result in float64, then its arguments; gives a tensor of the result's shape.

Of an operator with several results it takes the tuple of them, and gives a tuple: None, or nothing at the end, for
results that are rounded once.
"""

M = TypeVar("M", bound=Magnitude)

MAGNITUDES: dict[OpOverload, Magnitude] = {}


def magnitude(*names: str) -> Callable[[M], M]:
    """Register the decorated function for operators of ATen, named as ``sum.dim_IntList``; ``mm`` is ``mm.default``.

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
    """The operators of ATen of these names; a name may also be several, with spaces between them."""
    found = []
    for name in " ".join(names).split():
        packet, _, overload = name.partition(".")
        found.append(getattr(getattr(torch.ops.aten, packet), overload or "default"))
    return found


def drift(out: Tensor, terms: float) -> Tensor:
    """What partial sums of ``terms`` terms of one sign add: |out|·√(terms/3)."""
    return out.abs() * math.sqrt(max(terms, 0.0) / 3)


def absolute(x: Any) -> Any:
    """Magnitudes of floating-point tensors; anything else as it is."""
    return x.abs() if isinstance(x, Tensor) and x.is_floating_point() else x
