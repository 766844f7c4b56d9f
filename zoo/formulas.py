"""Small programs with equal formulas, and with wrong ones, for a comparison to tell apart.

Each takes one tensor. Inputs far from zero and tiny ones show what algorithms lose to cancellation, and which constants
(epsilons) count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[..., Tensor]

INPUTS: Mapping[str, tuple[float, float]] = {
    "0": (0.0, 1.0),
    "1e3": (1e3, 1.0),
    "1e6": (1e6, 1.0),
    "tiny": (0.0, 1e-6),
    "tiniest": (0.0, 1e-18),
}
"""Offset and standard deviation of inputs, by name."""


class Program(nn.Module):
    """A function of an input and of parameters."""

    def __init__(self, function: Function, weights: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(w.clone(), requires_grad=False) for w in weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


@dataclass(frozen=True)
class Formula:
    """A function, an equal one written by hand, and wrong ones by name.

    ``shape`` is that of the input, ``weights`` those of parameters.
    """

    function: Function
    equal: Function
    shape: tuple[int, ...]
    wrong: Mapping[str, Function] = field(default_factory=dict)
    weights: tuple[tuple[int, ...], ...] = ()

    def program(self, function: Function) -> Program:
        """Return the program of one of the functions, the parameters of which are the same for all."""
        generator = torch.Generator().manual_seed(1)
        made = [torch.randn(shape, generator=generator) / math.sqrt(max(shape[-1], 1)) for shape in self.weights]
        return Program(function, tuple(made)).eval()

    def input(self, kind: str, seed: int = 0) -> Tensor:
        """Return an input of a kind in `INPUTS`."""
        offset, scale = INPUTS[kind]
        return offset + scale * torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))


def _layer_norm(x: Tensor, eps: float = 1e-5, correction: int = 0, root: bool = False) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().sum(-1, keepdim=True) / (x.shape[-1] - correction)
    return (x - mean) / (variance.sqrt() + eps if root else torch.sqrt(variance + eps))


def _batch_norm(x: Tensor, mean: Tensor, w: Tensor, b: Tensor, eps: float = 1e-5) -> Tensor:
    variance = 1.5 + mean * mean
    return F.batch_norm(x, mean, variance, w, b, eps=eps)


def _attention(x: Tensor, scale: float | None = None) -> Tensor:
    weights = x @ x.transpose(-1, -2) * (x.shape[-1] ** -0.5 if scale is None else scale)
    return torch.softmax(weights, -1) @ x


def _rms_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    return x / torch.sqrt(x.square().sum(-1, keepdim=True) / x.shape[-1] + eps)


def _group_norm(x: Tensor, eps: float = 1e-5, correction: int = 0) -> Tensor:
    return _layer_norm(x.reshape(2, 2, -1), eps, correction).reshape(x.shape)


def _softmax(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e.div(e.sum(-1, keepdim=True))


def _cosine(x: Tensor, y: Tensor, scale: float = 1.0, eps: float = 1e-12) -> Tensor:
    sizes: Tensor = x.norm(dim=-1).clamp_min(eps) * y.norm(dim=-1).clamp_min(eps)
    return scale * (x * y).sum(-1) / sizes


def _conv(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    columns = F.unfold(x, 3)
    return (w.reshape(w.shape[0], -1) @ columns + b[:, None]).reshape(x.shape[0], w.shape[0], x.shape[-2] - 2, -1)


FORMULAS: Mapping[str, Formula] = {
    "layer_norm": Formula(
        lambda x: F.layer_norm(x, (64,)),
        _layer_norm,
        (8, 64),
        {
            "epsilon 1e-2": lambda x: F.layer_norm(x, (64,), eps=1e-2),
            "unbiased": lambda x: _layer_norm(x, correction=1),
            "epsilon outside the root": lambda x: _layer_norm(x, eps=1e-3, root=True),
            "epsilon 1e-6": lambda x: F.layer_norm(x, (64,), eps=1e-6),
        },
    ),
    "group_norm": Formula(
        lambda x: F.group_norm(x, 2),
        _group_norm,
        (2, 8, 16),
        {
            "other groups": lambda x: F.group_norm(x, 4),
            "epsilon 1e-3": lambda x: F.group_norm(x, 2, eps=1e-3),
            "unbiased": lambda x: _group_norm(x, correction=1),
        },
    ),
    "batch_norm": Formula(
        _batch_norm,
        lambda x, m, w, b: (x - m[:, None]) * (w / torch.sqrt(1.5 + m * m + 1e-5))[:, None] + b[:, None],
        (4, 6, 10),
        {
            "epsilon 1e-3": lambda x, m, w, b: _batch_norm(x, m, w, b, 1e-3),
            "without its bias": lambda x, m, w, b: _batch_norm(x, m, w, b * 0),
        },
        ((6,), (6,), (6,)),
    ),
    "rms_norm": Formula(
        lambda x: F.rms_norm(x, (64,), eps=1e-5),
        _rms_norm,
        (8, 64),
        {
            "epsilon 1e-3": lambda x: _rms_norm(x, 1e-3),
            "over n − 1": lambda x: F.rms_norm(x, (64,), eps=1e-5) * math.sqrt(63 / 64),
        },
    ),
    "softmax": Formula(
        lambda x: torch.softmax(x, -1),
        _softmax,
        (8, 64),
        {
            "times 1.001": lambda x: torch.softmax(x * 1.001, -1),
            "another axis": lambda x: torch.softmax(x, 0),
            "without the last term": lambda x: F.pad(torch.softmax(x[:, :-1], -1), (0, 1)),
        },
    ),
    "log_softmax": Formula(
        lambda x: torch.log_softmax(x, -1),
        lambda x: x - torch.logsumexp(x, -1, keepdim=True),
        (8, 64),
        {"times 1.001": lambda x: torch.log_softmax(x * 1.001, -1)},
    ),
    "logsumexp": Formula(
        lambda x: torch.logsumexp(x, -1),
        lambda x: torch.exp(x - x.amax(-1, keepdim=True)).sum(-1).log() + x.amax(-1),
        (8, 64),
        {"without the last term": lambda x: torch.logsumexp(x[:, :-1], -1)},
    ),
    "var": Formula(
        lambda x: x.var(-1),
        lambda x: (x - x.mean(-1, keepdim=True)).square().sum(-1) / (x.shape[-1] - 1),
        (8, 64),
        {
            "biased": lambda x: x.var(-1, correction=0),
            "without the last term": lambda x: x[:, :-1].var(-1),
        },
    ),
    "std": Formula(
        lambda x: x.std(-1),
        lambda x: x.var(-1).sqrt(),
        (8, 64),
        {"biased": lambda x: x.std(-1, correction=0), "times 1.0001": lambda x: x.std(-1) * 1.0001},
    ),
    "standardize": Formula(
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5),
        lambda x: (x - x.sum(-1, keepdim=True) / x.shape[-1]) / (x.var(-1, keepdim=True).sqrt() + 1e-5),
        (8, 64),
        {"biased": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + 1e-5)},
    ),
    "sum": Formula(
        lambda x: x.sum(-1),
        lambda x: x.reshape(2, 100, -1).sum(-1).sum(-1),
        (2, 20_000),
        {
            "without the last term": lambda x: x[:, :-1].sum(-1),
            "times 1 + 3e-5": lambda x: x.sum(-1) * (1 + 3e-5),
        },
    ),
    "mean": Formula(
        lambda x: x.mean(-1),
        lambda x: x.sum(-1) / x.shape[-1],
        (2, 20_000),
        {"over n − 1": lambda x: x.sum(-1) / (x.shape[-1] - 1), "of other terms": lambda x: x[:, :-1].mean(-1)},
    ),
    "cumsum": Formula(
        lambda x: x.cumsum(-1),
        lambda x: x @ torch.triu(x.new_ones(x.shape[-1], x.shape[-1])),
        (4, 200),
        {"exclusive": lambda x: x.cumsum(-1) - x, "times 1 + 1e-4": lambda x: x.cumsum(-1) * (1 + 1e-4)},
    ),
    "norm": Formula(
        lambda x: torch.linalg.vector_norm(x, dim=-1),
        lambda x: x.square().sum(-1).sqrt(),
        (8, 64),
        {"without the last term": lambda x: torch.linalg.vector_norm(x[:, :-1], dim=-1)},
    ),
    "cosine_similarity": Formula(
        lambda x, y: F.cosine_similarity(x, y.expand_as(x), dim=-1, eps=1e-12),
        lambda x, y: _cosine(x, y.expand_as(x)),
        (8, 64),
        {"times 1.0001": lambda x, y: _cosine(x, y.expand_as(x), 1.0001)},
        ((64,),),
    ),
    "linear": Formula(
        lambda x, w, b: F.linear(x, w, b),
        lambda x, w, b: (x[:, None, :] * w).sum(-1) + b,
        (8, 64),
        {
            "without its bias": lambda x, w, b: F.linear(x, w),
            "without the last term": lambda x, w, b: F.linear(x[:, :-1], w[:, :-1], b),
            "in bfloat16": lambda x, w, b: F.linear(x.bfloat16(), w.bfloat16(), b.bfloat16()).float(),
        },
        ((32, 64), (32,)),
    ),
    "conv": Formula(
        lambda x, w, b: F.conv2d(x, w, b),
        _conv,
        (2, 4, 8, 8),
        {
            "without its bias": lambda x, w, b: F.conv2d(x, w),
            "transposed kernel": lambda x, w, b: F.conv2d(x, w.transpose(-1, -2), b),
        },
        ((6, 4, 3, 3), (6,)),
    ),
    "attention": Formula(
        lambda x: F.scaled_dot_product_attention(x, x, x),
        _attention,
        (2, 2, 12, 16),
        {
            "another scale": lambda x: _attention(x, 0.26),
            "causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        },
    ),
    "gelu": Formula(
        lambda x: F.gelu(x),
        lambda x: 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5))),
        (8, 64),
        {"by tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": lambda x: F.silu(x * 1.702) / 1.702},
    ),
    "silu": Formula(
        lambda x: F.silu(x), lambda x: x / (1 + torch.exp(-x)), (8, 64), {"hardswish": lambda x: F.hardswish(x)}
    ),
    "tanh": Formula(
        lambda x: torch.tanh(x), lambda x: 2 * torch.sigmoid(2 * x) - 1, (8, 64), {"clamp": lambda x: x.clamp(-1, 1)}
    ),
    "softplus": Formula(
        lambda x: F.softplus(x),
        lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp_min(0),
        (8, 64),
        {"relu": lambda x: F.relu(x)},
    ),
    "avg_pool": Formula(
        lambda x: F.avg_pool1d(x, 4),
        lambda x: x.reshape(2, 4, -1, 4).mean(-1),
        (2, 4, 32),
        {"of other terms": lambda x: F.avg_pool1d(x.roll(1, -1), 4)},
    ),
    "interpolate": Formula(
        lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: F.interpolate(F.interpolate(x, size=(16, 8), mode="bilinear"), size=(16, 16), mode="bilinear"),
        (2, 3, 8, 8),
        {"corners": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)},
    ),
}
"""By the name of the operator."""
