"""Normalizations and softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph.registry import MICROSOFT, NotTranslated, defines


@defines("BatchNormalization", several=True)
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    outputs: int,
) -> tuple[Tensor, ...]:
    if training_mode or outputs > 1:
        raise NotTranslated("BatchNormalization in training has no definition")
    return (functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon),)


@defines("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@defines("LayerNormalization", several=True)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int,
) -> tuple[Tensor, ...]:
    shape = x.shape[axis:]
    out = functional.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)
    if outputs == 1:
        return (out,)
    dims = [*range(axis % x.dim(), x.dim())]
    mean = x.mean(dims, keepdim=True)
    return out, mean, ((x - mean).square().mean(dims, keepdim=True) + epsilon).rsqrt()


@defines("GroupNormalization")
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Tensor:
    """Normalize groups of channels; scale and bias are those of channels, or, before version 21, of groups."""
    if len(scale) == num_groups != x.shape[1]:
        each = x.shape[1] // num_groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@defines("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    dims = [*range(axis % x.dim(), x.dim())]
    return x * ((x * x).mean(dims, keepdim=True) + epsilon).rsqrt() * scale


@defines("SkipLayerNormalization", domain=MICROSOFT, several=True)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
    outputs: int,
) -> tuple[Tensor, ...]:
    """LayerNorm of x + skip + bias, whose sum is the fourth output"""
    total = x + skip if bias is None else x + skip + bias
    out, mean, spread = layer_normalization(total, scale, shift, epsilon=epsilon, outputs=3)
    return out, mean, spread, total


@defines("SkipSimplifiedLayerNormalization", domain=MICROSOFT, several=True)
def skip_rms_normalization(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-5, outputs: int
) -> tuple[Tensor | None, ...]:
    total = x + skip if bias is None else x + skip + bias
    return rms_normalization(total, scale, epsilon=epsilon), None, None, total


@defines("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    far = x - x.mean(list(axes), keepdim=True)
    return far / ((far * far).mean(list(axes), keepdim=True).sqrt() + 1e-9)


@defines("LRN")
def local_response_normalization(
    x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    if size % 2 == 0:
        raise NotTranslated("LRN over an even number of channels has no definition")
    return functional.local_response_norm(x, size, alpha, beta, bias)


@defines("Softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@defines("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


@defines("Hardmax")
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    n = x.shape[axis]
    return functional.one_hot(x.argmax(axis), n).movedim(-1, axis).to(x.dtype)


@defines("Dropout", several=True)
def dropout(
    x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None, *, seed: int = 0, outputs: int
) -> tuple[Tensor, ...]:
    if training is not None and bool(training):
        raise NotTranslated("Dropout in training has no definition")
    return x.clone(), torch.ones(x.shape, dtype=torch.bool, device=x.device)


@defines("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x over its norm along an axis, and 0 where that is 0"""
    size = x.abs().sum(axis, keepdim=True) if p == 1 else (x * x).sum(axis, keepdim=True).sqrt()
    return torch.where(size == 0, 0.0, x / size).to(x.dtype)
