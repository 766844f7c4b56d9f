"""Products of matrices and convolutions: the operator itself, on magnitudes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.rounding.magnitudes.registry import absolute, drift, magnitude

aten = torch.ops.aten


@magnitude("mm bmm mv dot vdot")
def measure_product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ|a||b|"""
    return torch.matmul(a.abs(), b.abs()) + drift(out, a.shape[-1])


@magnitude("addmm addmv baddbmm addbmm")
def measure_added_product(
    out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """|β||bias| + |α|Σ|a||b|"""
    product = torch.matmul(a.abs(), b.abs())
    product = product.sum(0) if out.ndim < product.ndim else product
    return _scale(beta, bias) + abs(alpha) * product + drift(out, a.shape[-1])


@magnitude("addr")
def measure_outer_product(out: Tensor, x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """|β||x| + 2|α||a||b|: a product of three and one of two are rounded, then their sum"""
    return _scale(beta, x) + 2 * abs(alpha) * torch.outer(a.abs(), b.abs())


def _scale(beta: float, x: Tensor) -> Tensor:
    """Return |β|·|x|; 0 for a factor of 0, because kernels do not read x then."""
    return abs(beta) * x.abs() if beta else torch.zeros_like(x)


@magnitude("linear")
def measure_linear(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Σ|x||w| + |bias|"""
    inside: Tensor = aten.linear(x.abs(), w.abs(), absolute(bias))
    return inside + drift(out, x.shape[-1])


@magnitude("convolution _convolution")
def measure_convolution(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """Σ|x||w| + |bias|"""
    transposed, groups = rest[3], rest[5]
    terms = w[:, 0].numel() / groups if transposed else w[0].numel()
    inside: Tensor = aten.convolution(x.abs(), w.abs(), absolute(bias), *rest[:6])
    return inside + drift(out, terms)


@magnitude("convolution_backward")
def measure_convolution_backward(
    out: tuple[Tensor, ...], grad: Tensor, x: Tensor, w: Tensor, *rest: Any
) -> tuple[Tensor | None, ...]:
    """Σ|grad||w|, Σ|grad||x| and Σ|grad|"""
    inside = aten.convolution_backward(grad.abs(), x.abs(), w.abs(), *rest)
    terms = w[0].numel(), grad.numel() / max(grad.shape[1], 1), grad.numel() / max(grad.shape[1], 1)
    return tuple(None if m is None else m + drift(o, k) for m, o, k in zip(inside, out, terms))


@magnitude("linalg_cross")
def measure_cross(out: Tensor, a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    """|a₁b₂| + |a₂b₁|"""
    a, b = torch.broadcast_tensors(a.abs(), b.abs())
    return a.roll(-1, dim) * b.roll(-2, dim) + a.roll(-2, dim) * b.roll(-1, dim)
