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
    return torch.matmul(a.abs(), b.abs()).add_(drift(out, a.shape[-1]))


@magnitude("addmm addmv baddbmm addbmm")
def measure_added_product(
    out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """|β||bias| + |α|Σ|a||b|, where adding to a huge bias, as of a mask, loses no more than what is added"""
    product = torch.matmul(a.abs(), b.abs())
    product = abs(alpha) * (product.sum(0) if out.ndim < product.ndim else product)
    sums = _scale(beta, bias) + drift(out, a.shape[-1])
    return (sums.minimum(product * 2.0**24) if abs(beta) == 1 else sums) + product


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
    return inside.add_(drift(out, x.shape[-1]))


@magnitude("convolution _convolution")
def measure_convolution(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """Σ|x||w| + |bias|"""
    transposed, groups = rest[3], rest[5]
    terms = w[:, 0].numel() / groups if transposed else w[0].numel()
    inside: Tensor = aten.convolution(x.abs(), w.abs(), absolute(bias), *rest[:6])
    return inside.add_(drift(out, terms))


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


@magnitude("_trilinear")
def measure_trilinear(out: Tensor, a: Tensor, b: Tensor, c: Tensor, *rest: Any) -> Tensor:
    """2Σ|a||b||c|: a product of three is rounded twice"""
    dims = range(a.ndim + len(rest[0]))
    shapes = [[1 if d in expanded else n for d, n in _numbered(x, expanded)] for x, expanded in zip((a, b, c), rest)]
    sizes = torch.broadcast_shapes(*shapes)
    terms = float(torch.Size(sizes[d] for d in dims if d in rest[3]).numel())
    inside: Tensor = aten._trilinear(a.abs(), b.abs(), c.abs(), *rest)
    return 2 * inside + drift(out, terms)


def _numbered(x: Tensor, expanded: list[int]) -> list[tuple[int, int]]:
    """Return the sizes of ``x`` with its expanded dimensions, numbered."""
    sizes = iter(x.shape)
    return [(d, 1 if d in expanded else next(sizes)) for d in range(x.ndim + len(expanded))]
