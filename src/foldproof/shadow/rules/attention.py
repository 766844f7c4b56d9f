"""Attention: scaled dot-product attention, and the whole encoder layers of which `torch.nn` makes one operator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed
from foldproof.shadow.residue import Residue
from foldproof.shadow.rules.decomposition import decompose_residues
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
    lse = shift + call.uninterpreted([total], real=torch.log, name="log")
    return (e / total).matmul(v), lse.map(lambda part: part.squeeze(-1))


@composed(aten._native_multi_head_attention.default)
def native_multi_head_attention(call: Call, *args: Any, **kwargs: Any) -> Any:
    """softmax(q·kᵀ/√d, where the mask is not True)·v, projected in and out"""
    return decompose_residues(call, args, kwargs)


@composed(aten._transformer_encoder_layer_fwd.default)
def transformer_encoder_layer(call: Call, *args: Any, **kwargs: Any) -> Any:
    """self-attention and two linear layers, each added to its operand and normalised before or after"""
    return decompose_residues(call, args, kwargs)


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale
