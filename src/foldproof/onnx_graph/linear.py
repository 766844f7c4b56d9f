"""Matrix products, attention, and rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from foldproof.onnx_graph import pointwise
from foldproof.onnx_graph.registry import MICROSOFT, NotTranslated, defines


@defines("MatMul")
def matmul(x: Tensor, y: Tensor) -> Tensor:
    return torch.matmul(x, y)


@defines("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(
    x: Tensor,
    y: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """alpha·x·y, each with its first dimension behind the batches, and transposed, where asked for"""
    x, y = (_transposed(z, last, batches) for z, last, batches in ((x, transA, transBatchA), (y, transB, transBatchB)))
    out = torch.matmul(x, y)
    return out if alpha == 1 else out * alpha


def _transposed(x: Tensor, last: int, batches: int) -> Tensor:
    x = x.movedim(0, -2) if batches else x
    return x.mT if last and x.dim() > 1 else x


@defines("Gemm")
def gemm(
    x: Tensor,
    y: Tensor,
    plus: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha·x·y + beta·plus"""
    out = torch.matmul(x.t() if transA else x, y.t() if transB else y)
    out = out if alpha == 1 else out * alpha
    if plus is None:
        return out
    return out + (plus if beta == 1 else plus * beta)


@defines("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    x: Tensor,
    y: Tensor,
    plus: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    numbers = [n for n in (activation_alpha, activation_beta, activation_gamma) if n is not None]
    out = gemm(x, y, plus, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return pointwise.activation(activation, numbers)(out)


@defines("Einsum")
def einsum(*xs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *xs)


@defines("Det")
def det(x: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.det(x))


@defines("MatMulInteger")
def matmul_integer(x: Tensor, y: Tensor, x_zero: Tensor | None = None, y_zero: Tensor | None = None) -> Tensor:
    left, right = x.to(torch.int32), y.to(torch.int32)
    if x_zero is not None:
        left = left - (x_zero.to(torch.int32).unsqueeze(-1) if x_zero.dim() == 1 else x_zero.to(torch.int32))
    return torch.matmul(left, right if y_zero is None else right - y_zero.to(torch.int32))


# Attention.


@defines("Attention", several=True)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    """softmax(scale·q·kᵀ + mask)·v, for heads in a dimension of their own, or in the last one"""
    if past_key is not None or outputs > 1:
        raise NotTranslated("Attention with a cache of keys and values, or further outputs, has no definition")
    flat = q.dim() == 3
    if flat:
        q, k, v = (_heads(x, n) for x, n in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads)))
    out = _attended(q, k, v, mask, scale, softcap, bool(is_causal))
    return (out.transpose(1, 2).flatten(2) if flat else out,)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(*x.shape[:-1], count, -1).transpose(1, 2)


def _attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, softcap: float, causal: bool
) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.mT) * (scale if scale else 1 / math.sqrt(q.shape[-1]))
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
    seen = seen.tril() if causal else seen
    if mask is not None and mask.dtype is torch.bool:
        seen = seen & mask
    elif mask is not None:
        seen = seen & (mask != -math.inf)
        scores = scores + mask
    if not bool(seen.any(-1).all()):
        raise NotTranslated("Attention with a row that is masked throughout has no definition")
    return torch.softmax(scores if bool(seen.all()) else scores.masked_fill(~seen, -math.inf), -1) @ v


@defines("MultiHeadAttention", domain=MICROSOFT, several=True)
def multi_head_attention(
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *more: Tensor | None,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float | None = None,
    unidirectional: int = 0,
    outputs: int,
) -> tuple[Tensor, ...]:
    if k is None or v is None or k.dim() != 3 or key_padding_mask is not None or any(x is not None for x in more):
        raise NotTranslated("MultiHeadAttention with packed operands, a padding mask or a cache has no definition")
    if outputs > 1 or (unidirectional and q.shape[1] != k.shape[1]):
        raise NotTranslated(
            "MultiHeadAttention with further outputs, or with other keys than queries that follow each"
            " other, has no definition"
        )
    if bias is not None:
        q, k, v = (x + part for x, part in zip((q, k, v), bias.split([q.shape[-1], k.shape[-1], v.shape[-1]])))
    q, k, v = (_heads(x, num_heads) for x in (q, k, v))
    return (_attended(q, k, v, attention_bias, scale, 0.0, bool(unidirectional)).transpose(1, 2).flatten(2),)


@defines("Attention", domain=MICROSOFT, several=True)
def microsoft_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *more: Tensor | None,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
    outputs: int,
) -> tuple[Tensor, ...]:
    """Attention of the queries, keys and values that one matrix makes of x."""
    if mask is not None or past is not None or any(y is not None for y in more) or do_rotary or outputs > 1:
        raise NotTranslated("com.microsoft.Attention with a mask, a cache or rotary positions has no definition")
    made = x @ weight if bias is None else x @ weight + bias
    sizes = list(qkv_hidden_sizes) if qkv_hidden_sizes else [made.shape[-1] // 3] * 3
    q, k, v = (_heads(part, num_heads) for part in made.split(sizes, -1))
    return (_attended(q, k, v, attention_bias, scale, 0.0, bool(unidirectional)).transpose(1, 2).flatten(2),)


@defines("RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    flat = x.dim() == 3
    y = x.reshape(*x.shape[:-1], num_heads, -1) if flat else x.transpose(1, 2)
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    width = rotary_embedding_dim or y.shape[-1]
    turned, kept = y[..., :width], y[..., width:]
    cos, sin = (t[..., : width // 2].unsqueeze(2) for t in (cos, sin))
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    turned = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    out = torch.cat([turned, kept], -1)
    return out.flatten(-2) if flat else out.transpose(1, 2)


@defines("RotaryEmbedding", domain=MICROSOFT)
def microsoft_rotary_embedding(
    x: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    if positions.numel() == 1 and x.dim() == 4:
        positions = (positions.reshape(()) + torch.arange(x.shape[2], device=x.device)).expand(x.shape[0], -1)
    elif positions.numel() == 1:
        positions = (positions.reshape(()) + torch.arange(x.shape[1], device=x.device)).expand(x.shape[0], -1)
    heads = num_heads or (1 if x.dim() == 4 else x.shape[-1] // (2 * cos.shape[-1]))
    return rotary_embedding(
        x, cos, sin, positions, interleaved=interleaved, num_heads=heads, rotary_embedding_dim=rotary_embedding_dim
    )
