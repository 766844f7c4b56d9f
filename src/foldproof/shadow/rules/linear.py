"""Matrix products and convolutions: native float64 kernels on residues, then one reduction."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.field import EXACT_TERMS
from foldproof.operators import NoDecomposition, find_decomposition
from foldproof.shadow.call import Call
from foldproof.shadow.registry import RuleKind, exact, rule
from foldproof.shadow.residue import Residue, add_all
from foldproof.shadow.undecided import Undecided

aten = torch.ops.aten


@exact(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.vdot.default)
def matmul(call: Call, a: Tensor, b: Tensor) -> Residue:
    """the float64 product of the residues, reduced"""
    return call.residue(a).matmul(call.residue(b))


@exact(aten.addmm.default, aten.baddbmm.default, aten.addmv.default)
def addmm(call: Call, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Residue:
    """beta·c + alpha·a·b"""
    if beta == alpha == 1:
        return call.residue(a).matmul(call.residue(b), plus=call.residue(c))
    return _plus(call, c, call.residue(a).matmul(call.residue(b)), beta, alpha)


def _plus(call: Call, c: Tensor, product: Residue, beta: float, alpha: float) -> Residue:
    product = product if alpha == 1 else product * call.residue(alpha)
    if beta == 0:  # c is ignored then, even if it holds a nan
        return product
    return product + (call.residue(c) if beta == 1 else call.residue(c) * call.residue(beta))


@exact(aten.addbmm.default)
def addbmm(call: Call, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Residue:
    """beta·c + alpha·(the sum over the batch of a·b)"""
    return _plus(call, c, call.residue(a).matmul(call.residue(b)).sum([0]), beta, alpha)


@exact(aten.addr.default)
def addr(call: Call, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Residue:
    """beta·c + alpha·a·bᵀ"""
    column = call.residue(a).map(lambda part: part.unsqueeze(-1))
    return _plus(call, c, column * call.residue(b), beta, alpha)


@exact(aten.linalg_cross.default)
def cross(call: Call, a: Tensor, b: Tensor, *, dim: int = -1) -> Residue:
    """the cross product of the residues, reduced"""
    return call.residue(a).bilinear(call.residue(b), lambda p, q: aten.linalg_cross.default(p, q, dim=dim), 2)


@exact(aten._trilinear.default)
def trilinear(
    call: Call,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    expand_a: list[int],
    expand_b: list[int],
    expand_c: list[int],
    sumdim: list[int],
    unroll_dim: int = 1,
) -> Residue:
    """the sum over some dimensions of a·b·c, of which each has dimensions that the others lack, reduced"""
    ndim = a.ndim + len(expand_a)
    names = [[d for d in range(ndim) if d not in expanded] for expanded in (expand_a, expand_b, expand_c)]
    kept = [d for d in range(ndim) if d not in sumdim]
    # A dimension that c lacks is summed before, which keeps the product of all three small.
    between = sorted({*names[0], *names[1]} & {*names[2], *kept})
    found = [d for d in kept if d in {*between, *names[2]}]
    ab = _contract(call, call.residue(a), names[0], call.residue(b), names[1], between)
    abc = _contract(call, ab, between, call.residue(c), names[2], found)
    shape = [abc.shape[found.index(d)] if d in found else 1 for d in kept]
    return abc.map(lambda part: part.reshape(shape))


def _contract(call: Call, x: Residue, dims: list[int], y: Residue, others: list[int], kept: list[int]) -> Residue:
    """Return the product of ``x`` and ``y``, whose dimensions are numbered, summed over those that are not ``kept``."""
    sizes: dict[int, int] = {}
    for d, n in (*zip(dims, x.shape), *zip(others, y.shape)):
        if sizes.setdefault(d, n) != n:
            raise call.undecided("a dimension has two sizes")
    terms = math.prod(n for d, n in sizes.items() if d not in kept)
    if terms > EXACT_TERMS:
        raise call.undecided("too many products to add up exactly")
    return x.bilinear(y, lambda p, q: torch.einsum(p, dims, q, others, kept), max(terms, 1))


@rule(RuleKind.EXACT, aten._grouped_mm.default, rewrites=True)
def grouped_mm(*args: Any, **kwargs: Any) -> Any:
    """each group of rows, which ends at its offset, times its own matrix"""
    try:
        return find_decomposition(aten._grouped_mm.default)(*args, **kwargs)
    except NoDecomposition as reason:
        raise Undecided(str(reason)) from reason


@exact(aten.convolution.default, aten._convolution.default)
def convolution(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    *unused: Any,
) -> Residue:
    """the float64 convolution of the residues, in chunks of the input channels, reduced"""
    geometry = (stride, padding, dilation, transposed, output_padding)
    shift = None if bias is None else call.residue(bias).channels(x.ndim)
    return _convolve(call.residue(x), call.residue(weight), geometry, groups, shift)


def _convolve(x: Residue, w: Residue, geometry: tuple[Any, ...], groups: int, plus: Residue | None = None) -> Residue:
    transposed = geometry[3]
    per_group = (w.shape[0] if transposed else x.shape[1]) // groups
    taps = math.prod(w.shape[2:])
    step = max(EXACT_TERMS // taps, 1)
    if taps > EXACT_TERMS:
        raise Undecided(f"a convolution kernel of {taps} taps is larger than {EXACT_TERMS}")
    if per_group <= step:
        terms, name = max(per_group * taps, 1), ("convolution", repr(geometry), groups)
        return x.bilinear(w, lambda a, b: _native(a, b, geometry, groups), terms, plus, name)
    if groups > 1:
        outputs = [_convolve(_part(x, 1, g, groups), _part(w, 0, g, groups), geometry, 1) for g in range(groups)]
        joined = outputs[0].map(lambda *parts: torch.cat(parts, 1), *outputs[1:])
        return joined if plus is None else joined + plus
    pieces = [] if plus is None else [plus]
    for start in range(0, per_group, step):
        n = min(step, per_group - start)
        some = x.map(lambda part: part.narrow(1, start, n))
        kernel = w.map(lambda part: part.narrow(0 if transposed else 1, start, n))
        pieces.append(_convolve(some, kernel, geometry, 1))
    return add_all(pieces)


def _part(x: Residue, dim: int, index: int, of: int) -> Residue:
    n = x.shape[dim] // of
    return x.map(lambda part: part.narrow(dim, index * n, n))


def _native(x: Tensor, w: Tensor, geometry: tuple[Any, ...], groups: int) -> Tensor:
    # cuDNN may choose Winograd or FFT, which are not exact; native kernels multiply and add.
    with torch.backends.cudnn.flags(enabled=False) if x.is_cuda else contextlib.nullcontext():
        out: Tensor = aten.convolution.default(x, w, None, *geometry, groups)
    return out


@exact(aten.convolution_backward.default)
def convolution_backward(
    call: Call,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> list[Residue | None]:
    """a transposed convolution; the sum over all positions of products; and the sum of the gradients"""
    g, a, w = call.residue(grad), call.residue(x), call.residue(weight)
    geometry = (stride, padding, dilation, transposed, output_padding)
    out: list[Residue | None] = [None, None, None]
    if mask[0]:
        out[0] = _input_gradient(g, w, x.shape[2:], geometry, groups)
    if mask[1]:

        def of_weight(g: Residue, a: Residue, terms: int) -> Residue:
            return g.bilinear(a, lambda gp, ap: _native_weight_gradient(gp, ap, weight, geometry, groups), terms)

        out[1] = add_all(_over_positions(g, a, of_weight, transposed))
    if mask[2]:
        out[2] = g.sum([0, *range(2, grad.ndim)])
    return out


def _input_gradient(g: Residue, w: Residue, sizes: Any, geometry: tuple[Any, ...], groups: int) -> Residue:
    """Return the gradient of a convolution's input, which is the convolution the other way."""
    stride, padding, dilation, transposed, _ = ([*x] * (len(sizes) if len(x) == 1 else 1) for x in _listed(geometry))
    none = [0] * len(sizes)
    if transposed[0]:
        back = _convolve(g, w, (stride, padding, dilation, False, none), groups)
        for d, n in enumerate(sizes, 2):
            back = back.map(lambda part, d=d, n=n: part.narrow(d, 0, n))
        return back
    spans = zip(sizes, g.shape[2:], w.shape[2:], stride, padding, dilation)
    rest = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in spans]
    return _convolve(g, w, (stride, padding, dilation, True, rest), groups)


def _listed(geometry: tuple[Any, ...]) -> list[list[Any]]:
    return [[x] if isinstance(x, bool) else list(x) for x in geometry]


def _over_positions(
    g: Residue, a: Residue, product: Callable[[Residue, Residue, int], Residue], transposed: bool
) -> list[Residue]:
    """Return the summands of a sum over all images and positions, each of as many products as add up exactly.

    A position is one of the gradient; of a transposed convolution, one of its input.
    """
    images, shape = g.shape[0], (a if transposed else g).shape[2:]
    area = max(shape.numel(), 1)
    if area <= EXACT_TERMS:
        step = max(EXACT_TERMS // area, 1)
        made = []
        for start in range(0, images, step):
            n = min(step, images - start)
            some, there = (x.map(lambda part, start=start, n=n: part.narrow(0, start, n)) for x in (g, a))
            made.append(product(some, there, n * area))
        return made or [product(g, a, 1)]
    made = []
    for image, start in itertools.product(range(images), range(0, area, EXACT_TERMS)):
        one = [x.map(lambda part, i=image: part.narrow(0, i, 1)) for x in (g, a)]
        place = torch.arange(area).reshape(shape)
        kept = (place >= start) & (place < start + EXACT_TERMS)
        one[transposed] = one[transposed].map(lambda part, kept=kept: torch.where(kept, part, 0.0))
        made.append(product(one[0], one[1], EXACT_TERMS))
    return made


def _native_weight_gradient(g: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], groups: int) -> Tensor:
    like = torch.empty(weight.shape, dtype=torch.float64, device=x.device)
    with torch.backends.cudnn.flags(enabled=False) if x.is_cuda else contextlib.nullcontext():
        out: Tensor = aten.convolution_backward.default(g, x, like, None, *geometry, groups, [False, True, False])[1]
    return out
