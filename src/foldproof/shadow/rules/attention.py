"""Attention: scaled dot-product attention, and the whole encoder layers of which `torch.nn` makes one operator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed
from foldproof.shadow.residue import Residue
from foldproof.shadow.rules.normalisation import exp_shifted

aten = torch.ops.aten


@composed(aten._scaled_dot_product_flash_attention_for_cpu.default)
def flash_attention_for_cpu(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Residue, Residue]:
    """softmax(√s·q · √s·kᵀ + mask)·v; √s is the float64 number that `_scaled_dot_product_attention_math` uses"""
    if dropout_p:
        raise call.undecided("attention with dropout is random")
    if is_causal and attn_mask is not None:
        raise call.undecided("no rule for a mask and is_causal together")
    if _scale(query, scale) < 0:
        raise call.undecided("no rule for a negative scale")
    s = call.residue(math.sqrt(_scale(query, scale)))
    q, k, v = (call.residue(t) for t in (query, key, value))
    shared = query.shape[1] // key.shape[1]  # grouped-query attention: heads that share a key and a value
    if shared > 1:
        key = call.value(key).repeat_interleave(shared, 1)
        k, v = (r.map(lambda part: part.repeat_interleave(shared, 1)) for r in (k, v))
    scores = (q * s).matmul((k * s).map(lambda part: part.transpose(-2, -1)))
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        attn_mask = allowed.logical_not().to(torch.float64).masked_fill(allowed.logical_not(), -math.inf)
    shown = torch.matmul(call.value(query).double(), call.value(key).double().transpose(-2, -1))
    if attn_mask is not None:
        scores = scores + call.residue(attn_mask)
        shown = shown * _scale(query, scale) + call.value(attn_mask)
        if bool((shown.amax(-1) == -math.inf).any()):
            raise call.undecided("a row is masked throughout")
    e, shift = exp_shifted(call, scores, shown.to(query.dtype), [-1])
    total = e.sum([-1], True)
    lse = shift + call.opaque([total], real=torch.log, name="log")
    return (e / total).matmul(v), lse.map(lambda part: part.squeeze(-1))


@composed(aten._native_multi_head_attention.default)
def native_multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Residue, Residue | None]:
    """softmax(q·kᵀ/√d, where the mask is not True)·v, projected in and out"""
    qkv = qkv_weight, qkv_bias, proj_weight, proj_bias
    out, weights = _self_attention(call, (query, key, value), num_head, qkv, mask, mask_type)
    if not need_weights:
        return call.residue(out), None
    return call.residue(out), call.residue(weights.mean(1) if average_attn_weights else weights)


@composed(aten._transformer_encoder_layer_fwd.default)
def transformer_encoder_layer(
    call: Call,
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Residue:
    """self-attention and two linear layers, each added to its operand and normalised before or after"""
    if use_gelu and src.device.type != "cpu":
        raise call.undecided("other devices approximate this gelu")

    def first_norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second_norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    x = first_norm(src) if norm_first else src
    weights = qkv_weight, qkv_bias, proj_weight, proj_bias
    x = _self_attention(call, (x, x, x), num_heads, weights, mask, mask_type)[0] + src
    x = x if norm_first else first_norm(x)
    hidden = F.linear(second_norm(x) if norm_first else x, ffn_weight_1, ffn_bias_1)
    hidden = F.gelu(hidden) if use_gelu else F.relu(hidden)
    x = F.linear(hidden, ffn_weight_2, ffn_bias_2) + x
    return call.residue(x if norm_first else second_norm(x))


def _self_attention(
    call: Call,
    operands: tuple[Tensor, Tensor, Tensor],
    heads: int,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    mask: Tensor | None,
    mask_type: int | None,
) -> tuple[Tensor, Tensor]:
    """What it puts out, (batch, length, channels), and the attention weights, (batch, heads, length, length)."""
    width = operands[0].shape[-1]
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(operands, weights[0].split(width), weights[1].split(width))
    )
    scores = (q * _scale(q, None)) @ k.transpose(-2, -1)
    if mask is not None:
        # 0 is a mask of (length, length), 1 of (batch, length), 2 of all.
        hidden = mask[:, None, None, :] if mask_type == 1 else mask
        if not hidden.dtype == torch.bool or mask_type not in (0, 1, 2):
            raise call.undecided("no rule for this kind of mask")
        if bool(hidden.all(-1).any()):
            raise call.undecided("a row is masked throughout")
        scores = scores.masked_fill(hidden, -math.inf)
    attention = scores.softmax(-1)
    return F.linear((attention @ v).transpose(1, 2).flatten(2), weights[2], weights[3]), attention


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale
