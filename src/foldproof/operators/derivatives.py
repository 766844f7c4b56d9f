"""Decompositions of backward operators for which PyTorch has none.

Some differentiate the decomposition of the forward operator: `vector_jacobian_product` runs it under autograd, so that
nobody writes a derivative down. The others are sums of gradients at given places, and derivatives that use a result of
the operator forward. Tests compare each with the real operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.torch_internals import OpOverload, decomposition_of, vector_jacobian_product

aten = torch.ops.aten


class NoDecomposition(Exception):
    """An operator is called in a form without a known decomposition; the message names it."""


_SUM, _MEAN, _MAX = range(3)  # modes of embedding bags


def _derive_sampling(forward: OpOverload) -> Callable[..., Tensor]:
    """Return the backward operator of an interpolation, which is linear in its operand."""

    def backward(grad: Tensor, output_size: Sequence[int], input_size: Sequence[int], *rest: Any) -> Tensor:
        def sample(x: Tensor) -> Any:
            return [decomposition_of(forward)(x, output_size, *rest)]

        zeros = torch.zeros_like(grad.flatten()[:1]).expand(tuple(input_size)).clone()
        return vector_jacobian_product(sample, [zeros], [grad])[0]

    return backward


def _derive_grid_sampler(
    grad: Tensor, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool, mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    def sample(x: Tensor, grid: Tensor) -> Any:
        return [decomposition_of(aten.grid_sampler_2d.default)(x, grid, mode, padding, align_corners)]

    of_x, of_grid = vector_jacobian_product(sample, [x, grid], [grad])
    return of_x if mask[0] else None, of_grid if mask[1] else None


def _derive_weight_norm(grad: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return gradients of v and g; the norm is the given one."""
    dims = [d for d in range(v.ndim) if d != dim % v.ndim]
    length = norms.reshape(g.shape).to(v.dtype)
    along = (grad * v).sum(dims, True)
    return g / length * (grad - v * (along / (length * length))), along / length


def _derive_norm_of(grad: Tensor, difference: Tensor, p: float, norm: Tensor) -> Tensor:
    """Return grad times the derivative of the norm of ``difference`` along the last axis; 0 where the norm is 0."""
    grad, norm = grad.unsqueeze(-1), norm.unsqueeze(-1)
    if p == 0:
        return difference * 0
    if p == 1:
        return grad * difference.sign()
    if math.isinf(p):
        return grad * difference.sign() * (difference.abs() == norm)
    if p == 2:
        return (grad * difference / norm).masked_fill(norm == 0, 0)
    size = difference.abs()
    share = difference.sign() * size.pow(p - 1) if p < 2 else difference * size.pow(p - 2)
    share = share.masked_fill(size == 0, 0) if p < 1 else share
    return (grad * share / norm.pow(p - 1)).masked_fill(norm == 0, 0)


def _derive_distances(grad: Tensor, a: Tensor, b: Tensor, p: float, distances: Tensor) -> Tensor:
    return _derive_norm_of(grad, a.unsqueeze(-2) - b.unsqueeze(-3), p, distances).sum(-2).sum_to_size(a.shape)


def _derive_distances_within(grad: Tensor, x: Tensor, p: float, distances: Tensor) -> Tensor:
    i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
    found = _derive_norm_of(grad, x.index_select(0, i) - x.index_select(0, j), p, distances)
    return torch.zeros_like(x).index_add(0, i, found).index_add(0, j, found, alpha=-1)


def _derive_hardshrink(grad: Tensor, x: Tensor, lambd: float) -> Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), torch.zeros_like(grad), grad)


def _scatter_masked(grad: Tensor, mask: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the gradient of the source of ``masked_scatter``: the gradients under the mask, in order, then zeros."""
    chosen = grad.masked_select(mask)
    return torch.nn.functional.pad(chosen, (0, math.prod(sizes) - chosen.numel())).reshape(tuple(sizes))


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat = x.flatten().index_put((index.flatten(),), source.flatten(), accumulate)
    return flat.reshape(x.shape)


def _derive_embedding_bag(
    grad: Tensor,
    indices: Tensor,
    offsets: Tensor,
    bags: Tensor,
    sizes: Tensor,
    largest: Tensor,
    rows: int,
    by_frequency: bool,
    mode: int,
    sparse: bool,
    weights: Tensor | None,
    padding_idx: int = -1,
) -> Tensor:
    """Return the gradient of an embedding's table: that of each bag, added to its rows."""
    if sparse:
        raise NoDecomposition("no rule for this form of aten._embedding_bag_backward.default: its result is sparse")
    table = grad.new_zeros(rows, grad.shape[1])
    if mode == _MAX:
        return table.scatter_add(0, largest.to(torch.int64), grad)
    if not bags.numel():  # the kernel forward leaves them out where it needs none
        places = torch.arange(len(indices), device=indices.device)
        bags = torch.searchsorted(offsets.contiguous(), places.to(offsets.dtype), right=True) - 1
    kept = indices != padding_idx
    at, bag = indices[kept].to(torch.int64), bags[kept].to(torch.int64)
    share = grad.index_select(0, bag)
    if mode == _MEAN:
        share = share / torch.bincount(bag, minlength=len(grad))[bag].unsqueeze(-1)
    if weights is not None:
        share = share * weights[kept].unsqueeze(-1)
    if by_frequency:
        share = share / torch.bincount(at, minlength=rows)[at].unsqueeze(-1)
    return table.index_add(0, at, share)


def _derive_sample_weights(
    grad: Tensor, table: Tensor, indices: Tensor, offsets: Tensor, bags: Tensor, mode: int, padding_idx: int = -1
) -> Tensor:
    """Return the gradient of each sample's weight: the product of its row and the gradient of its bag."""
    if not bags.numel():
        places = torch.arange(len(indices), device=indices.device)
        bags = torch.searchsorted(offsets.contiguous(), places.to(offsets.dtype), right=True) - 1
    products = (grad.index_select(0, bags.to(torch.int64)) * table.index_select(0, indices.to(torch.int64))).sum(-1)
    return products.masked_fill(indices == padding_idx, 0)


def _derive_attention(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of attention's operands, from its result and the logsumexp of the scores."""
    shared = query.shape[1] // key.shape[1]
    k, v = (x.repeat_interleave(shared, 1) if shared > 1 else x for x in (key, value))
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    q, k = query * root, k * root
    scores = q @ k.transpose(-2, -1)
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril().logical_not()
        scores = scores.masked_fill(hidden, -math.inf)
    if attn_mask is not None:
        scores = scores + attn_mask
    w = (scores - logsumexp.reshape(scores.shape[:-1]).unsqueeze(-1)).exp()
    of_scores = w * (grad @ v.transpose(-2, -1) - (grad * out).sum(-1, True))
    of_k, of_v = of_scores.transpose(-2, -1) @ q * root, w.transpose(-2, -1) @ grad
    if shared > 1:
        of_k, of_v = (x.unflatten(1, (-1, shared)).sum(2) for x in (of_k, of_v))
    return of_scores @ k * root, of_k, of_v


DERIVATIVES: dict[OpOverload, Callable[..., Any]] = {
    aten._cdist_backward.default: _derive_distances,
    aten._embedding_bag_backward.default: _derive_embedding_bag,
    aten._embedding_bag_per_sample_weights_backward.default: _derive_sample_weights,
    aten._pdist_backward.default: _derive_distances_within,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _derive_attention,
    aten._weight_norm_interface_backward.default: _derive_weight_norm,
    aten.grid_sampler_2d_backward.default: _derive_grid_sampler,
    aten.hardshrink_backward.default: _derive_hardshrink,
    aten.masked_scatter_backward.default: _scatter_masked,
    aten.put.default: _put,
    aten.softshrink_backward.default: _derive_hardshrink,
    aten.upsample_bicubic2d_backward.default: _derive_sampling(aten.upsample_bicubic2d.default),
    aten.upsample_bilinear2d_backward.default: _derive_sampling(aten.upsample_bilinear2d.default),
    aten.upsample_linear1d_backward.default: _derive_sampling(aten.upsample_linear1d.default),
    aten.upsample_trilinear3d_backward.default: _derive_sampling(aten.upsample_trilinear3d.default),
}
"""Backward operators as functions of other operators, with the arguments of the operator."""
