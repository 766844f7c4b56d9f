"""Operators without rounding, and operators that round their result and nothing else."""

from __future__ import annotations

from foldproof.rounding.magnitudes.registry import find_aten
from foldproof.torch_internals import quantized_operators

decomposed = quantized_operators()

_CHOOSING = """
    relu threshold hardshrink heaviside nan_to_num clamp clamp.Tensor clamp_min clamp_max clamp_min.Tensor
    clamp_max.Tensor hardtanh maximum minimum fmax fmin max min max.dim min.dim amax amin cummax cummin aminmax
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
    sort sort.stable topk kthvalue median median.dim nanmedian nanmedian.dim mode
    where.self where.Scalar where.ScalarSelf where.ScalarOther
    masked_fill.Scalar masked_fill.Tensor masked_scatter masked_select
    threshold_backward hardtanh_backward hardshrink_backward softshrink_backward
"""

_MOVING = """
    cat stack block_diag embedding index.Tensor _unsafe_index.Tensor _unsafe_masked_index index_select gather take
    clone copy tril triu constant_pad_nd flip roll rot90 repeat diag_embed
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    slice_scatter select_scatter diagonal_scatter as_strided_scatter scatter.src scatter.value
    select_backward slice_backward diagonal_backward masked_scatter_backward
    index_copy index_fill.int_Tensor index_fill.int_Scalar max_unpool2d max_unpool3d
    pixel_shuffle pixel_unshuffle channel_shuffle
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_nearest1d.vec upsample_nearest2d.vec
    upsample_nearest3d.vec _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
"""

_SIGNS_AND_DIGITS = (
    "neg abs sign sgn copysign.Tensor copysign.Scalar floor ceil round trunc frac fmod.Tensor fmod.Scalar"
)
"""The remainder of a division is exact in floating point, because it has no more digits than its operands."""

_FILLING = """
    zero zeros_like ones_like zeros ones new_zeros new_ones fill.Tensor
    empty_like empty.memory_format new_empty new_empty_strided
"""

_WHOLE = """
    all all.dim all.dims any any.dim any.dims eq.Scalar eq.Tensor ne.Scalar ne.Tensor ge.Scalar ge.Tensor gt.Scalar
    gt.Tensor le.Scalar le.Tensor lt.Scalar lt.Tensor logical_and logical_or logical_not logical_xor
    __and__.Tensor __or__.Tensor __xor__.Tensor
    isinf isnan isneginf isposinf isin.Tensor_Tensor isin.Tensor_Scalar signbit
    argmax argmin count_nonzero count_nonzero.dim_IntList bucketize.Tensor bucketize.Scalar searchsorted.Tensor
    searchsorted.Scalar nonzero nonzero_static
"""
"""Operators with integer or boolean results, and comparisons of the operands as they are."""

MOVING = frozenset(find_aten(_MOVING))
"""Operators that arrange elements of their operands, and fill in numbers."""
EXACT = frozenset(find_aten(_CHOOSING, _MOVING, _SIGNS_AND_DIGITS, _FILLING, _WHOLE))

_MADE = """
    _to_copy full full_like new_full scalar_tensor fill.Scalar arange arange.start arange.start_step eye linspace
"""
"""Operators that make or convert numbers."""

RESULTS = frozenset(find_aten(_MADE, "_prelu_kernel _prelu_kernel_backward leaky_relu_backward")) | {
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_tensor.tensor2,
    decomposed.dequantize_per_channel.default,
}
"""PReLU, its derivatives and dequantization round one product of two numbers; subtracting a zero point from a small
integer is exact."""

UNKNOWN = frozenset(find_aten("polygamma igamma igammac special_zeta"))
"""Pointwise operators with approximations by series and recurrences, which may lose many digits."""
