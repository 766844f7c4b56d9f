"""Functions with a backward of their own, right ones and ones with a planted fault, and what they replace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


class Case(NamedTuple):
    """A composite of PyTorch's functions, a hand-written forward and backward, and shapes of inputs.

    ``backward`` takes the name of a fault, or "", before the gradient; it has to be refuted with each of ``faults``.
    """

    composite: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    faults: tuple[str, ...]
    integers: tuple[Any, ...] = ()

    def function(self, fault: str = "") -> Callable[..., Any]:
        """The hand-written function, with this fault."""
        forward, backward = self.forward, self.backward

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                return forward(ctx, *args)

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                return backward(fault, ctx, *grads)

        return Function.apply

    def inputs(self) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(shape, generator=generator).requires_grad_() for shape in self.shapes]
        return (*drawn, *self.integers)


# ---------------------------------------------------------------------------------------------------- linear


def _linear(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    ctx.save_for_backward(x, w)
    return x @ w.T + b


def _linear_back(fault: str, ctx: Any, g: Tensor) -> Any:
    x, w = ctx.saved_tensors
    of_x, of_w, of_b = g @ w, g.T @ x, g.sum(0)
    if fault == "the weight is transposed":
        of_x = g @ w.T
    if fault == "the bias is reduced along the wrong axis":
        of_b = g.sum(1)
    if fault == "the bias is averaged":
        of_b = g.mean(0)
    if fault == "the sign of the weight's gradient":
        of_w = -of_w
    if fault == "the weight's gradient is transposed":
        of_w = of_w.T
    return (of_x, of_w, None) if fault == "no gradient of the bias" else (of_x, of_w, of_b)


LINEAR = Case(
    F.linear,
    _linear,
    _linear_back,
    ((4, 4), (4, 4), (4,)),
    (
        "the weight is transposed",
        "the bias is reduced along the wrong axis",
        "the bias is averaged",
        "the sign of the weight's gradient",
        "the weight's gradient is transposed",
        "no gradient of the bias",
    ),
)

# ---------------------------------------------------------------------------------------------------- norms


def _layer_norm(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = x.mean(-1, True)
    rstd = torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + EPS)
    normal = (x - mean) * rstd
    ctx.save_for_backward(normal, rstd, w)
    return normal * w + b


def _layer_norm_back(fault: str, ctx: Any, g: Tensor) -> Any:
    normal, rstd, w = ctx.saved_tensors
    of_normal = g if fault == "the weight is forgotten" else g * w
    center = of_normal.mean(-1, True)
    along = (of_normal * normal).mean(-1, True)
    if fault == "the term through the mean is forgotten":
        center = torch.zeros_like(center)
    if fault == "the term through the variance is forgotten":
        along = torch.zeros_like(along)
    if fault == "the variance is unbiased":
        along = along * (normal.shape[-1] / (normal.shape[-1] - 1))
    of_x = (of_normal - center - normal * along) * (rstd**2 if fault == "another power of the deviation" else rstd)
    return of_x, (g if fault == "the weight's gradient lacks the normal" else g * normal).sum(0), g.sum(0)


LAYER_NORM = Case(
    lambda x, w, b: F.layer_norm(x, w.shape, w, b, EPS),
    _layer_norm,
    _layer_norm_back,
    ((3, 5), (5,), (5,)),
    (
        "the weight is forgotten",
        "the term through the mean is forgotten",
        "the term through the variance is forgotten",
        "the variance is unbiased",
        "another power of the deviation",
        "the weight's gradient lacks the normal",
    ),
)


def _root_norm(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
    center = x - x.mean(-1, True)
    deviation = ((center * center).mean(-1, True) + EPS).sqrt()
    normal = center / deviation
    ctx.save_for_backward(normal, deviation, w)
    return normal * w


def _root_norm_back(fault: str, ctx: Any, g: Tensor) -> Any:
    normal, deviation, w = ctx.saved_tensors
    of_normal = g * w
    along = (of_normal * normal).mean(-1, True)
    of_x = 1.0 / deviation * (of_normal - normal * along - of_normal.mean(-1, True))
    if fault == "the deviation is squared":
        of_x = of_x / deviation
    if fault == "half of the term through the variance":
        of_x = 1.0 / deviation * (of_normal - normal * along / 2 - of_normal.mean(-1, True))
    return of_x, (g * normal).sum(0)


ROOT_NORM = Case(
    lambda x, w: _root_norm(_Kept(), x, w),
    _root_norm,
    _root_norm_back,
    ((3, 5), (5,)),
    ("the deviation is squared", "half of the term through the variance"),
)


class _Kept:
    """A context that keeps nothing, for a forward that autograd differentiates."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep nothing."""


def _rms_norm(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
    rstd = torch.rsqrt((x * x).mean(-1, True) + EPS)
    ctx.save_for_backward(x, rstd, w)
    return x * rstd * w


def _rms_norm_back(fault: str, ctx: Any, g: Tensor) -> Any:
    x, rstd, w = ctx.saved_tensors
    scaled = g * w
    along = (scaled * x).sum(-1, True) if fault == "a sum for a mean" else (scaled * x).mean(-1, True)
    power = 2 if fault == "the square of the deviation for its cube" else 3
    return scaled * rstd - x * rstd**power * along, (g * x * rstd).sum(0)


RMS_NORM = Case(
    lambda x, w: F.rms_norm(x, w.shape, w, EPS),
    _rms_norm,
    _rms_norm_back,
    ((3, 5), (5,)),
    ("a sum for a mean", "the square of the deviation for its cube"),
)


def _batch_norm(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    rstd = torch.rsqrt(x.var(0, unbiased=False) + EPS)
    normal = (x - x.mean(0)) * rstd
    ctx.save_for_backward(normal, rstd, w)
    return normal * w + b


def _batch_norm_back(fault: str, ctx: Any, g: Tensor) -> Any:
    normal, rstd, w = ctx.saved_tensors
    of_normal = g * w
    of_x = of_normal - of_normal.mean(0) - normal * (of_normal * normal).mean(0)
    if fault == "the statistics are constants":
        of_x = of_normal
    if fault == "the means are over features":
        of_x = of_normal - of_normal.mean(1, True) - normal * (of_normal * normal).mean(1, True)
    return of_x * rstd, (g * normal).sum(0), g.sum(0)


BATCH_NORM = Case(
    lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, EPS),
    _batch_norm,
    _batch_norm_back,
    ((4, 4), (4,), (4,)),
    ("the statistics are constants", "the means are over features"),
)

# ---------------------------------------------------------------------------------------------------- activations


def _silu(ctx: Any, x: Tensor) -> Tensor:
    ctx.save_for_backward(x)
    return x * torch.sigmoid(x)


def _silu_back(fault: str, ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    s = torch.sigmoid(x)
    if fault == "the product rule is forgotten":
        return g * s
    return g * s * (1 + x * (s if fault == "1 - s is s" else 1 - s))


SILU = Case(F.silu, _silu, _silu_back, ((3, 4),), ("the product rule is forgotten", "1 - s is s"))


def _tanh(ctx: Any, x: Tensor) -> Tensor:
    ctx.y = x.tanh()
    return ctx.y.clone()


def _tanh_back(fault: str, ctx: Any, g: Tensor) -> Tensor:
    return g * (1 - (ctx.y if fault == "the result is not squared" else ctx.y * ctx.y))


TANH = Case(torch.tanh, _tanh, _tanh_back, ((3, 4),), ("the result is not squared",))


def _relu_sum(ctx: Any, x: Tensor) -> Tensor:
    y = x.relu()
    ctx.y = y
    ctx.positive = y > 0
    total = y.sum()
    y.add_(1)  # the buffer is used again
    return total


def _relu_sum_back(fault: str, ctx: Any, g: Tensor) -> Tensor:
    positive = ctx.y > 0 if fault == "the saved buffer was written to" else ctx.positive
    return g * positive


RELU_SUM = Case(lambda x: x.relu().sum(), _relu_sum, _relu_sum_back, ((3, 4),), ("the saved buffer was written to",))


def _clamp(ctx: Any, x: Tensor) -> Tensor:
    ctx.save_for_backward(x)
    return x.clamp(-0.5, 0.5)


def _clamp_back(fault: str, ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    if fault == "gradients pass the limits":
        return g
    inside = x > -0.5 if fault == "one limit is forgotten" else (x >= -0.5) & (x <= 0.5)
    return g * inside


CLAMP = Case(
    lambda x: x.clamp(-0.5, 0.5),
    _clamp,
    _clamp_back,
    ((3, 4),),
    ("gradients pass the limits", "one limit is forgotten"),
)

# ---------------------------------------------------------------------------------------------------- softmax, losses


def _softmax(ctx: Any, x: Tensor) -> Tensor:
    y = x.softmax(-1)
    ctx.save_for_backward(y)
    return y


def _softmax_back(fault: str, ctx: Any, g: Tensor) -> Tensor:
    (y,) = ctx.saved_tensors
    if fault == "the Jacobian is diagonal":
        return g * y * (1 - y)
    return y * (g - (g * y).sum(0 if fault == "a sum along another axis" else -1, True))


SOFTMAX = Case(
    lambda x: x.softmax(-1),
    _softmax,
    _softmax_back,
    ((3, 4),),
    ("the Jacobian is diagonal", "a sum along another axis"),
)


def _cross_entropy(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
    logs = x.log_softmax(-1)
    ctx.save_for_backward(logs.exp(), target)
    return -logs.gather(-1, target.unsqueeze(-1)).sum()


def _cross_entropy_back(fault: str, ctx: Any, g: Tensor) -> Any:
    p, target = ctx.saved_tensors
    hit = F.one_hot(target, p.shape[-1]).to(p.dtype)
    if fault == "the sign":
        return g * (hit - p), None
    if fault == "the target is not subtracted":
        return g * p, None
    return g * (p - hit) / (len(p) if fault == "a mean for a sum" else 1), None


CROSS_ENTROPY = Case(
    lambda x, target: F.cross_entropy(x, target, reduction="sum"),
    _cross_entropy,
    _cross_entropy_back,
    ((3, 4),),
    ("the sign", "the target is not subtracted", "a mean for a sum"),
    (torch.tensor([1, 0, 3]),),
)


def _attention(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scale = 1 / math.sqrt(q.shape[-1])
    weights = (q @ k.transpose(-2, -1) * scale).softmax(-1)
    ctx.save_for_backward(q, k, v, weights)
    return weights @ v


def _attention_back(fault: str, ctx: Any, g: Tensor) -> Any:
    q, k, v, weights = ctx.saved_tensors
    scale = 1 / math.sqrt(q.shape[-1])
    of_weights = g @ v.transpose(-2, -1)
    rows = (of_weights * weights).sum(-1, True)
    of_scores = weights * (of_weights - (0 if fault == "the sum over a row is forgotten" else rows))
    of_k = of_scores.transpose(-2, -1) @ q
    return (
        of_scores @ k * (1 if fault == "the scale is forgotten" else scale),
        (of_scores @ q if fault == "the key's gradient is transposed" else of_k) * scale,
        (weights if fault == "the value's weights are transposed" else weights.transpose(-2, -1)) @ g,
    )


ATTENTION = Case(
    F.scaled_dot_product_attention,
    _attention,
    _attention_back,
    ((1, 1, 3, 16),) * 3,
    (
        "the sum over a row is forgotten",
        "the scale is forgotten",
        "the key's gradient is transposed",
        "the value's weights are transposed",
    ),
)

CASES = {
    "linear": LINEAR,
    "layer_norm": LAYER_NORM,
    "rms_norm": RMS_NORM,
    "root_norm": ROOT_NORM,
    "batch_norm": BATCH_NORM,
    "silu": SILU,
    "tanh": TANH,
    "relu_sum": RELU_SUM,
    "clamp": CLAMP,
    "softmax": SOFTMAX,
    "cross_entropy": CROSS_ENTROPY,
    "attention": ATTENTION,
}
