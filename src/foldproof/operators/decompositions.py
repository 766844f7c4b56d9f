"""Decompositions of operators into simpler ones, for shadows and for float64: PyTorch's own, or ours.

A decomposition takes the operator's arguments, and runs on any tensors.

Raises (from any decomposition):
    NoDecomposition: this form of the operator has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof.operators.derivatives import DERIVATIVES, NoDecomposition
from foldproof.torch_internals import OpOverload, decompose_lstm_layer, decomposition_of, vector_jacobian_product

__all__ = ["DECOMPOSITIONS", "NoDecomposition", "find_decomposition"]

aten = torch.ops.aten

_LSTM = 2  # oneDNN's number for this kind of cell


def find_decomposition(operator: OpOverload) -> Callable[..., Any]:
    """Return the operator as a function of other operators.

    Raises:
        KeyError: the operator has no decomposition.
    """
    return DECOMPOSITIONS[operator] if operator in DECOMPOSITIONS else decomposition_of(operator)


def _decompose_multi_head_attention(
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
) -> tuple[Tensor, Tensor | None]:
    projections = qkv_weight, qkv_bias, proj_weight, proj_bias
    out, weights = _attend((query, key, value), num_head, projections, mask, mask_type)
    if not need_weights:
        return out, None
    return out, weights.mean(1) if average_attn_weights else weights


def _decompose_encoder_layer(
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
) -> Tensor:
    """Self-attention and two linear layers, each added to its operand and normalized before or after."""
    if use_gelu and src.device.type != "cpu":
        raise NoDecomposition("other devices approximate this gelu")

    def first_norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second_norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    x = first_norm(src) if norm_first else src
    projections = qkv_weight, qkv_bias, proj_weight, proj_bias
    x = _attend((x, x, x), num_heads, projections, mask, mask_type)[0] + src
    x = x if norm_first else first_norm(x)
    hidden = F.linear(second_norm(x) if norm_first else x, ffn_weight_1, ffn_bias_1)
    hidden = F.gelu(hidden) if use_gelu else F.relu(hidden)
    x = F.linear(hidden, ffn_weight_2, ffn_bias_2) + x
    return x if norm_first else second_norm(x)


def _attend(
    operands: tuple[Tensor, Tensor, Tensor],
    heads: int,
    projections: tuple[Tensor, Tensor, Tensor, Tensor],
    mask: Tensor | None,
    mask_type: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the result, (batch, length, channels), and the attention weights, (batch, heads, length, length)."""
    width = operands[0].shape[-1]
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(operands, projections[0].split(width), projections[1].split(width))
    )
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    if mask is not None:
        # A mask of type 0 is (length, length), of type 1 (batch, length), of type 2 all four dimensions.
        hidden = mask[:, None, None, :] if mask_type == 1 else mask
        if not hidden.dtype == torch.bool or mask_type not in (0, 1, 2):
            raise NoDecomposition("no rule for this kind of mask")
        if bool(hidden.all(-1).any()):
            raise NoDecomposition("a row is masked throughout")
        scores = scores.masked_fill(hidden, -math.inf)
    attention = scores.softmax(-1)
    return F.linear((attention @ v).transpose(1, 2).flatten(2), projections[2], projections[3]), attention


def _decompose_lstm_layer(
    x: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    input_bias: Tensor,
    hidden_bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, None]:
    """Run one layer in one direction; the arguments on the number of layers and the input's layout are unused.

    The last result, which only the backward operator reads, is left out.
    """
    if mode != _LSTM or batch_sizes or not len(x):
        raise NoDecomposition("no rule for this form of aten.mkldnn_rnn_layer.default")
    weights = (input_weight, hidden_weight, *((input_bias, hidden_bias) if has_biases else ()))
    start = [state.view(state.shape[-2:]) for state in (hidden, cell)]
    out, (last, memory) = decompose_lstm_layer(x, start, weights, has_biases, reverse)
    return out, last.view(hidden.shape), memory.view(cell.shape), None


def _derive_lstm_layer(
    x: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    input_bias: Tensor,
    hidden_bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    output: Tensor,
    last: Tensor,
    memory: Tensor,
    of_output: Tensor | None,
    of_last: Tensor | None,
    of_memory: Tensor | None,
    reverse: bool,
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    train: bool,
    bidirectional: bool,
    batch_sizes: list[int],
    batch_first: bool,
    workspace: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of the first seven arguments; the workspace and results are those of a call on them."""
    if not has_biases:
        raise NoDecomposition("no rule for this form of aten.mkldnn_rnn_layer_backward.default")
    rest: Any = (reverse, batch_sizes, mode, hidden_size, num_layers, has_biases, bidirectional, batch_first, train)

    def run(*operands: Any) -> list[Tensor]:
        made = _decompose_lstm_layer(*operands, *rest)
        return [made[0], made[1], made[2]]

    given = ((of_output, output), (of_last, last), (of_memory, memory))
    cotangents = [torch.zeros_like(like) if grad is None else grad.view(like.shape) for grad, like in given]
    operands = [x, input_weight, hidden_weight, input_bias, hidden_bias, hidden, cell]
    return tuple(vector_jacobian_product(run, operands, cotangents))


def _decompose_grouped_mm(
    x: Tensor, weight: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Each group of rows, of columns or of the axis that is summed, which ends at its offset, times its own matrix."""
    ends = [] if offs is None else offs.tolist()
    parts = [slice(start, end) for start, end in zip([0, *ends], ends)]
    axis = {(2, 3): x.shape[0], (3, 2): weight.shape[-1], (2, 2): x.shape[-1]}.get((x.ndim, weight.ndim))
    batched = x.ndim == weight.ndim == 3 and offs is None
    if not (batched or (ends and ends[-1] == axis)) or bias is not None:
        raise NoDecomposition("no rule for this form of aten._grouped_mm.default")
    if batched:
        out = x @ weight
    elif weight.ndim == 3:
        out = torch.cat([x[part] @ w for part, w in zip(parts, weight)])
    elif x.ndim == 3:
        out = torch.cat([one @ weight[:, part] for part, one in zip(parts, x)], -1)
    else:
        out = torch.stack([x[:, part] @ weight[part] for part in parts])
    columns = out.shape[-1]
    out = out.to(out_dtype)
    aligned = -columns % max(16 // out.element_size(), 1)  # rows of the result begin at multiples of 16 bytes
    return torch.nn.functional.pad(out, (0, aligned))[..., :columns] if aligned else out


DECOMPOSITIONS: dict[OpOverload, Callable[..., Any]] = {
    aten._native_multi_head_attention.default: _decompose_multi_head_attention,
    aten._transformer_encoder_layer_fwd.default: _decompose_encoder_layer,
    aten.mkldnn_rnn_layer.default: _decompose_lstm_layer,
    aten.mkldnn_rnn_layer_backward.default: _derive_lstm_layer,
    aten._grouped_mm.default: _decompose_grouped_mm,
    **DERIVATIVES,
}
"""Operators without a decomposition in PyTorch, or with one that is not generally available."""
