"""The rounding of operators on complex numbers.

Kernels compute both parts of a result from both parts of the operands. A product's real part ac - bd is off by two
roundings of |ac| + |bd|, which is at most the product of the absolute values: so an error is measured by the absolute
value of the result, whichever part it is in. A quotient by (c² + d²) takes seven roundings, the most of the operators
here (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.6). Sums of products are off by the same
magnitudes as those of real numbers, of absolute values.

Operators that are not listed have no bound for complex numbers, unless they only move or negate them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.operators import find_functional_form
from foldproof.rounding.magnitudes.registry import find_aten
from foldproof.torch_internals import OpOverload, tree_iter

ROUNDINGS = 8
"""Unit roundoffs of the absolute value that bound the error of one operator in either part."""

_POINTWISE = frozenset(
    find_aten(
        """
        abs sgn angle add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
        div.Tensor div.Scalar reciprocal exp log sqrt sin cos sinh cosh tanh sigmoid silu polar complex _to_copy full
        full_like new_full fill.Scalar square
        """
    )
)
"""Operators that round each part of their result a few times."""

_SUMS = frozenset(
    find_aten(
        """
        mm bmm mv dot vdot addmm addmv baddbmm addr sum sum.dim_IntList mean mean.dim cumsum trace scatter_add index_add
        index_put addcmul addcdiv lerp.Scalar lerp.Tensor linalg_vector_norm linalg_cross
        _fft_c2c _fft_r2c _fft_c2r
        """
    )
)
"""Operators with a magnitude that holds for absolute values."""

_INEXACT = frozenset(find_aten("abs sgn"))


def involves_complex(*xs: Any) -> bool:
    """Return True if a complex tensor is among arguments or results."""
    return any(isinstance(x, Tensor) and x.is_complex() for x in tree_iter(xs))


def has_bound(operator: OpOverload, is_exact: bool) -> bool:
    """Return True if the error of the operator on complex numbers has a bound."""
    form = find_functional_form(operator)
    operator = operator if form is None else form.operator
    return operator in _POINTWISE or operator in _SUMS or (is_exact and operator not in _INEXACT)


def is_rounded_once(operator: OpOverload) -> bool:
    """Return True if the error is measured by the result alone."""
    return operator in _POINTWISE


def bound_complex(x: Tensor, size: Tensor | None, roundoff: float, inside: float, dtype: torch.dtype) -> Tensor:
    """Return error bounds, which hold for each part of the elements of ``x``.

    ``roundoff`` is that of ``dtype``, a real one, and ``inside`` that of sums. Elements that ``dtype`` holds have none
    of their own.
    """
    parts = torch.view_as_real(x.resolve_conj())
    held = (parts.to(dtype).to(torch.float64) == parts).all(-1)
    own = (x.abs() * (ROUNDINGS * roundoff)).masked_fill_(held, 0.0)
    return own if size is None else own.add_(size.abs(), alpha=2 * inside)


def draw_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers in [-1, 1] of the tensor's shape, independent in both parts of complex ones."""
    shape = (*x.shape, 2) if x.is_complex() else x.shape
    noise = torch.rand(shape, generator=generator, dtype=torch.float64).mul_(2).sub_(1)
    return torch.view_as_complex(noise) if x.is_complex() else noise
