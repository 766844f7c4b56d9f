"""Attention: scaled dot-product attention, and the whole encoder layers of which `torch.nn` makes one operator."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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
    """softmax(√s·q · √s·kᵀ + mask)·v, 0 where a row is masked; √s as `_scaled_dot_product_attention_math` has it"""
    attended = _attend(call, query, key, value, dropout_p, is_causal, attn_mask, scale, empty_rows=True)
    if attended.empty is not None and bool(call.first_result.masked_fill(~attended.empty, 0.0).any()):
        raise call.undecided("a row is masked throughout, and this kernel makes something else than 0 of it")
    return attended.weights.matmul(attended.v), attended.lse.map(lambda part: part.squeeze(-1))


class _Attended(NamedTuple):
    """Operands times √s, the values, all with one head for each of the query's; weights, and logsumexp of scores."""

    q: Residue
    k: Residue
    v: Residue
    weights: Residue
    lse: Residue
    root: Residue
    """√s"""
    empty: Tensor | None
    """True for rows that are masked throughout, if there are any."""


def _attend(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
    empty_rows: bool = False,
) -> _Attended:
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
    q, k = q * s, k * s
    scores = q.matmul(k.map(lambda part: part.transpose(-2, -1)))
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        attn_mask = allowed.logical_not().to(torch.float64).masked_fill(allowed.logical_not(), -math.inf)
    shown = torch.matmul(call.value(query).double(), call.value(key).double().transpose(-2, -1))
    if attn_mask is not None:
        if bool((shown * _scale(query, scale)).to(query.dtype).isinf().any()):
            raise call.undecided("a score overflows at the given inputs, as if it were masked")
        scores = scores + call.residue(attn_mask)
        shown = shown * _scale(query, scale) + call.value(attn_mask)
        if not empty_rows and bool((shown.amax(-1) == -math.inf).any()):
            raise call.undecided("a row is masked throughout")
    e, shift = exp_shifted(call, scores, shown.to(query.dtype), [-1], empty_rows)
    total, empty = e.sum([-1], True), shown.amax(-1, True) == -math.inf
    if bool(empty.any()):
        total = total.map(lambda part: torch.where(empty, 1.0, part))
    lse = shift + call.uninterpreted([total], real=torch.log, name="log")
    return _Attended(q, k, v, e / total, lse, s, empty if bool(empty.any()) else None)


@composed(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def flash_attention_for_cpu_backward(
    call: Call,
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
) -> Any:
    """from w = exp(scores - logsumexp), which is the softmax if this is the logsumexp of these very scores"""
    attended = _attend(call, query, key, value, dropout_p, is_causal, attn_mask, scale)
    if logsumexp.numel() != attended.lse.numel():
        raise call.undecided(f"a logsumexp of shape {tuple(logsumexp.shape)} is none of these scores")
    if not attended.lse.reshape(*logsumexp.shape).equals(call.residue(logsumexp)):
        rest = {"attn_mask": attn_mask, "scale": scale}
        return decompose_residues(call, (grad, query, key, value, out, logsumexp, dropout_p, is_causal), rest)
    q, k, v, w, _, root, _ = attended
    g = call.residue(grad)
    of_w = g.matmul(v.map(lambda part: part.transpose(-2, -1)))
    of_scores = w * (of_w - (g * call.residue(out)).sum([-1], True))
    of_k = of_scores.map(lambda part: part.transpose(-2, -1)).matmul(q) * root
    of_v = w.map(lambda part: part.transpose(-2, -1)).matmul(g)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        n, heads = key.shape[:2]
        of_k, of_v = (x.reshape(n, heads, shared, *x.shape[2:]).sum([2]) for x in (of_k, of_v))
    return of_scores.matmul(k) * root, of_k, of_v


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
