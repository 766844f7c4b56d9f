"""Less common operators, by PyTorch's own decomposition, run on shadows.

Only the operators listed here are decomposed; each is tested against the real operator like any other rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import NoDecomposition, find_decomposition
from foldproof.shadow.call import Call
from foldproof.shadow.registry import RuleKind, branch, composed, rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import Choices
from foldproof.torch_internals import tree_map

aten = torch.ops.aten


@composed(
    aten._unsafe_masked_index.default,
    aten._unsafe_masked_index_put_accumulate.default,
    aten.binary_cross_entropy.default,
    aten.binary_cross_entropy_with_logits.default,
    aten.deg2rad.default,
    aten.frac.default,
    aten.grid_sampler_2d.default,
    aten.huber_loss.default,
    aten.linalg_vector_norm.default,
    aten.logit.default,
    aten.max_unpool2d.default,
    aten.max_unpool3d.default,
    aten.mish.default,
    aten.mse_loss.default,
    aten.nll_loss2d_forward.default,
    aten.nll_loss_forward.default,
    aten.norm.ScalarOpt_dim,
    aten.rad2deg.default,
    aten.smooth_l1_loss.default,
    aten.soft_margin_loss.default,
    aten.upsample_bicubic2d.default,
    aten.upsample_bilinear2d.default,
    aten.upsample_linear1d.default,
    aten.upsample_trilinear3d.default,
)
def decomposed(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by PyTorch's own decomposition"""
    return decompose_residues(call, args, kwargs)


@composed(
    aten._cdist_backward.default,
    aten._embedding_bag_backward.default,
    aten._embedding_bag_per_sample_weights_backward.default,
    aten._log_softmax_backward_data.default,
    aten._pdist_backward.default,
    aten._softmax_backward_data.default,
    aten._weight_norm_interface_backward.default,
    aten.binary_cross_entropy_backward.default,
    aten.diagonal_backward.default,
    aten.embedding_dense_backward.default,
    aten.gelu_backward.default,
    aten.glu_backward.default,
    aten.grid_sampler_2d_backward.default,
    aten.hardsigmoid_backward.default,
    aten.huber_loss_backward.default,
    aten.logit_backward.default,
    aten.smooth_l1_loss_backward.default,
    aten.masked_scatter_backward.default,
    aten.mish_backward.default,
    aten.mse_loss_backward.default,
    aten.native_batch_norm_backward.default,
    aten.native_group_norm_backward.default,
    aten.native_layer_norm_backward.default,
    aten.nll_loss2d_backward.default,
    aten.nll_loss_backward.default,
    aten.put.default,
    aten.select_backward.default,
    aten.sigmoid_backward.default,
    aten.silu_backward.default,
    aten.slice_backward.default,
    aten.soft_margin_loss_backward.default,
    aten.tanh_backward.default,
    aten.unfold_backward.default,
    aten.upsample_bicubic2d_backward.default,
    aten.upsample_bilinear2d_backward.default,
    aten.upsample_linear1d_backward.default,
    aten.upsample_trilinear3d_backward.default,
)
def backward(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by PyTorch's own decomposition, or as the derivative of that of the operator forward"""
    return decompose_residues(call, args, kwargs)


@rule(RuleKind.COMPOSED, aten.native_dropout_backward.default, booleans=True)
def dropout_backward(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by PyTorch's own decomposition; the mask may be a function of the generator's state"""
    return decompose_residues(call, args, kwargs)


@branch(
    aten._prelu_kernel_backward.default,
    aten.elu_backward.default,
    aten.hardshrink_backward.default,
    aten.hardswish_backward.default,
    aten.hardtanh_backward.default,
    aten.leaky_relu_backward.default,
    aten.log_sigmoid_backward.default,
    aten.softplus_backward.default,
    aten.softshrink_backward.default,
    aten.threshold_backward.default,
    booleans=True,
)
def backward_by_cases(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by the piece that the value is in, as PyTorch's own decomposition compares"""
    semantics = call.point.semantics
    call.follows_values = semantics.choices is Choices.BY_VALUE and not semantics.algebraic
    return decompose_residues(call, args, kwargs)


@composed(aten.log_sigmoid_forward.default)
def log_sigmoid(call: Call, x: Tensor) -> Any:
    """min(x, 0) - log1p(exp(-|x|))"""
    by_parts = decompose_residues(call, (x,), {})
    if not call.algebraic(x):
        return by_parts
    return call.uninterpreted([x], real=torch.nn.functional.logsigmoid), by_parts[1]


def decompose_residues(call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the residues of the results of the operator's decomposition, run on the same shadows."""
    try:
        made = find_decomposition(call.operator)(*args, **kwargs)
    except NoDecomposition as reason:
        raise call.undecided(str(reason)) from reason
    return tree_map(lambda x: _residue(call, x), made)


def _residue(call: Call, x: Any) -> Residue | None:
    return call.residue(x) if isinstance(x, Tensor) and x.dtype.is_floating_point else None
