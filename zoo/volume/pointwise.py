"""Operators that act on one element at a time: activations, arithmetic, comparisons, roundings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from zoo.volume.block import ANY, Block, Draw, stateless, wide


@stateless(*ANY)
def relu(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.relu(x),
        (
            lambda s, x: x.clamp(min=0),
            lambda s, x: torch.where(x > 0, x, 0),
            lambda s, x: x * (x > 0),
            lambda s, x: torch.maximum(x, torch.zeros_like(x)),
            lambda s, x: (x + x.abs()) / 2,
            lambda s, x: F.threshold(x, 0, 0),
            lambda s, x: x + F.relu(-x),
            lambda s, x: x.masked_fill(x < 0, 0),
            lambda s, x: x.clone().relu_(),
        ),
        (
            lambda s, x: F.leaky_relu(x, 0.01),
            lambda s, x: F.relu(x * f),
            lambda s, x: F.relu6(x),
            lambda s, x: F.relu(x - 0.01),
            lambda s, x: F.softplus(x, beta=20),
            lambda s, x: x.abs(),
            lambda s, x: x.clamp(min=-0.01),
        ),
    )


@stateless(*ANY)
def gelu(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.gelu(x),
        (
            lambda s, x: 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5))),
            lambda s, x: x * torch.special.ndtr(x),
            lambda s, x: x * (0.5 * torch.erfc(x * -math.sqrt(0.5))),
        ),
        (
            lambda s, x: F.gelu(x, approximate="tanh"),
            lambda s, x: x * torch.sigmoid(1.702 * x),
            lambda s, x: F.gelu(x * f),
            lambda s, x: 0.5 * x * (1 + torch.erf(x * 0.7)),
            lambda s, x: F.silu(x),
        ),
    )


@stateless(*ANY)
def gelu_by_tanh(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.gelu(x, approximate="tanh"),
        (
            lambda s, x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            lambda s, x: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)),
        ),
        (
            lambda s, x: F.gelu(x),
            lambda s, x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * f * x**3))),
            lambda s, x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3))),
        ),
    )


@stateless(*ANY)
def silu(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.silu(x),
        (
            lambda s, x: x * torch.sigmoid(x),
            lambda s, x: x / (1 + torch.exp(-x)),
            lambda s, x: x.div(x.neg().exp().add(1)),
            lambda s, x: x - x * torch.sigmoid(-x),
        ),
        (
            lambda s, x: x * torch.sigmoid(x * f),
            lambda s, x: F.hardswish(x),
            lambda s, x: x / (f + torch.exp(-x)),
            lambda s, x: F.mish(x),
        ),
    )


@stateless(*ANY)
def sigmoid_and_tanh(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.sigmoid(x) + torch.tanh(x),
        (
            lambda s, x: torch.tanh(x) + 1 / (1 + torch.exp(-x)),
            lambda s, x: torch.sigmoid(x) + (2 * torch.sigmoid(2 * x) - 1),
            lambda s, x: 0.5 + 0.5 * torch.tanh(0.5 * x) + torch.tanh(x),
            lambda s, x: torch.sigmoid(x) + torch.sinh(x) / torch.cosh(x),
        ),
        (
            lambda s, x: torch.sigmoid(x) - torch.tanh(x),
            lambda s, x: torch.sigmoid(x * f) + torch.tanh(x),
            lambda s, x: F.hardsigmoid(x) + torch.tanh(x),
            lambda s, x: torch.sigmoid(x) + F.hardtanh(x),
        ),
    )


@stateless(*ANY)
def softplus(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.softplus(x),
        (
            lambda s, x: torch.log1p(torch.exp(x)),
            lambda s, x: torch.logaddexp(x, torch.zeros_like(x)),
            lambda s, x: -F.logsigmoid(-x),
            lambda s, x: F.relu(x) + torch.log1p(torch.exp(-x.abs())),
        ),
        (
            lambda s, x: F.softplus(x, beta=f),
            lambda s, x: F.softplus(x, threshold=2),
            lambda s, x: torch.log(f + torch.exp(x.clamp(max=9))),
            lambda s, x: F.softplus(x) - math.log(2),
        ),
    )


@stateless(*ANY)
def elu(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.elu(x, 1.5),
        (
            lambda s, x: torch.where(x > 0, x, 1.5 * torch.expm1(x)),
            lambda s, x: torch.where(x > 0, x, 1.5 * (torch.exp(x) - 1)),
            lambda s, x: F.relu(x) + 1.5 * torch.expm1(x.clamp(max=0)),
        ),
        (
            lambda s, x: F.elu(x, 1.5 * f),
            lambda s, x: F.celu(x, 1.5),
            lambda s, x: F.selu(x),
            lambda s, x: torch.where(x > 0.1, x, 1.5 * torch.expm1(x)),
        ),
    )


@stateless(*ANY)
def leaky_relu(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.leaky_relu(x, 0.125),
        (
            lambda s, x: torch.where(x > 0, x, 0.125 * x),
            lambda s, x: torch.maximum(x, 0.125 * x),
            lambda s, x: F.relu(x) - 0.125 * F.relu(-x),
            lambda s, x: F.prelu(x, torch.full((1,), 0.125, dtype=x.dtype)),
            lambda s, x: 0.125 * x + 0.875 * x.clamp(min=0),
        ),
        (
            lambda s, x: F.leaky_relu(x, 0.125 * f),
            lambda s, x: torch.minimum(x, 0.125 * x),
            lambda s, x: F.relu(x) + 0.125 * F.relu(-x),
            lambda s, x: torch.where(x > -0.1, x, 0.125 * x),
        ),
    )


@stateless(*ANY)
def prelu(d: Draw) -> Block:
    f, v = d.factor(), (d.vector if len(d.shape) == 4 else (-1,))
    feature_is_second = len(d.shape) != 3
    shown = v if feature_is_second else (1,)
    size = d.width if feature_is_second else 1
    return Block(
        lambda s, x: F.prelu(x, s.a),
        (
            lambda s, x: torch.where(x > 0, x, s.a.view(shown) * x),
            lambda s, x: F.relu(x) - s.a.view(shown) * F.relu(-x),
        ),
        (
            lambda s, x: F.prelu(x, s.a * f),
            lambda s, x: F.prelu(x, 1 - s.a),
            lambda s, x: torch.where(x > 0, s.a.view(shown) * x, x),
        ),
        {"a": d.positive(size) * 0.25},
    )


@stateless(*ANY)
def clamp(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x.clamp(-1, 1.5),
        (
            lambda s, x: torch.minimum(torch.maximum(x, -torch.ones_like(x)), torch.full_like(x, 1.5)),
            lambda s, x: F.hardtanh(x, -1.0, 1.5),
            lambda s, x: x.clamp_min(-1).clamp_max(1.5),
            lambda s, x: torch.where(x > 1.5, 1.5, torch.where(x < -1, -1.0, x)),
            lambda s, x: x - F.relu(x - 1.5) + F.relu(-1 - x),
        ),
        (
            lambda s, x: x.clamp(-1, 1.5 * f),
            lambda s, x: x.clamp(-f, 1.5),
            lambda s, x: x.clamp(-1.5, 1),
            lambda s, x: x.clamp(min=-1),
            lambda s, x: F.hardtanh(x),
        ),
    )


@stateless(*ANY)
def hardswish(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.hardswish(x),
        (
            lambda s, x: x * F.relu6(x + 3) / 6,
            lambda s, x: x * F.hardsigmoid(x),
            lambda s, x: x * (x + 3).clamp(0, 6) * (1 / 6),
        ),
        (
            lambda s, x: x * F.relu6(x + 3 * f) / 6,
            lambda s, x: x * F.relu6(x + 3) / (6 * f),
            lambda s, x: F.silu(x),
            lambda s, x: x * (x + 3).clamp(0, 5.5) / 6,
        ),
    )


@stateless(*ANY)
def mish(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.mish(x),
        (lambda s, x: x * torch.tanh(F.softplus(x)), lambda s, x: x * torch.tanh(torch.log1p(torch.exp(x)))),
        (lambda s, x: x * torch.tanh(F.softplus(x) * f), lambda s, x: F.silu(x), lambda s, x: F.mish(x * f)),
    )


@stateless(*ANY)
def shrink(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.softshrink(x, 0.5) + F.softsign(x),
        (
            lambda s, x: x - x.clamp(-0.5, 0.5) + x / (1 + x.abs()),
            lambda s, x: F.relu(x - 0.5) - F.relu(-x - 0.5) + F.softsign(x),
            lambda s, x: torch.sign(x) * F.relu(x.abs() - 0.5) + F.softsign(x),
        ),
        (
            lambda s, x: F.hardshrink(x, 0.5) + F.softsign(x),
            lambda s, x: F.softshrink(x, 0.5 * f) + F.softsign(x),
            lambda s, x: F.softshrink(x, 0.5) + F.tanhshrink(x),
            lambda s, x: F.softshrink(x, 0.5) + x / (f + x.abs()),
        ),
    )


@stateless(*ANY)
def logarithm(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.log(x * x + 1),
        (
            lambda s, x: torch.log1p(x**2),
            lambda s, x: -torch.log(1 / (1 + x * x)),
            lambda s, x: 2 * torch.log(torch.sqrt(x.square() + 1)),
            lambda s, x: torch.log2(x * x + 1) * math.log(2),
        ),
        (
            lambda s, x: torch.log(x * x + f),
            lambda s, x: torch.log2(x * x + 1),
            lambda s, x: torch.log1p(x.abs()),
            lambda s, x: torch.log(f * (x * x + 1)),
        ),
    )


@stateless(*ANY)
def roots(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x / torch.sqrt(x * x + 1),
        (
            lambda s, x: x * torch.rsqrt(1 + x.square()),
            lambda s, x: x * (x.pow(2) + 1).pow(-0.5),
            lambda s, x: x / (x**2 + 1) ** 0.5,
            lambda s, x: x * torch.sqrt(x * x + 1) / (x * x + 1),
            lambda s, x: x * torch.reciprocal(torch.hypot(x, torch.ones_like(x))),
        ),
        (
            lambda s, x: x / torch.sqrt(x * x + f),
            lambda s, x: x * torch.rsqrt(1 + x.abs()),
            lambda s, x: x / (x * x + 1),
            lambda s, x: x * (x.pow(2) + 1).pow(-0.51),
        ),
    )


@stateless(*ANY)
def exponentials(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.exp(-x.abs()) * x,
        (
            lambda s, x: x / torch.exp(x.abs()),
            lambda s, x: x * torch.exp2(x.abs() * (-1 / math.log(2))),
            lambda s, x: x * (torch.expm1(-x.abs()) + 1),
            lambda s, x: x * torch.exp(-0.5 * x.abs()).square(),
        ),
        (
            lambda s, x: torch.exp(-x.abs() * f) * x,
            lambda s, x: torch.exp2(-x.abs()) * x,
            lambda s, x: torch.exp(-x.square()) * x,
            lambda s, x: torch.exp(-x.abs()) * x.abs(),
        ),
    )


@stateless(*ANY)
def polynomial(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: 0.25 * x**3 - x**2 + 0.5 * x + 2,
        (
            lambda s, x: ((0.25 * x - 1) * x + 0.5) * x + 2,
            lambda s, x: 2 + x * (0.5 - x + x * x * 0.25),
            lambda s, x: torch.addcmul(2 + x / 2, x.square(), x - 4, value=0.25),
            lambda s, x: x.pow(3).div(4).sub(x.square()).add(x, alpha=0.5).add(2),
        ),
        (
            lambda s, x: ((0.25 * f * x - 1) * x + 0.5) * x + 2,
            lambda s, x: ((0.25 * x + 1) * x + 0.5) * x + 2,
            lambda s, x: ((0.25 * x - 1) * x + 0.5 * f) * x + 2,
            lambda s, x: ((0.25 * x - 1) * x + 0.5) * x + 2 * f,
        ),
    )


@stateless(*ANY)
def arithmetic(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: x * 2 + s.a - x / (1 + s.b),
        (
            lambda s, x: x + s.a + x - x / (s.b + 1),
            lambda s, x: s.a - x / (1 + s.b) + 2 * x,
            lambda s, x: torch.addcdiv(s.a + 2 * x, x, 1 + s.b, value=-1),
            lambda s, x: torch.rsub(x / (1 + s.b), x * 2 + s.a),
            lambda s, x: s.a + x * (2 - torch.reciprocal(1 + s.b)),
            lambda s, x: (x * (1 + 2 * s.b)) / (1 + s.b) + s.a,
            lambda s, x: torch.lerp(x, x * 3, 0.5) + s.a + -x / (1 + s.b),
        ),
        (
            lambda s, x: x * (2 * f) + s.a - x / (1 + s.b),
            lambda s, x: x * 2 - s.a - x / (1 + s.b),
            lambda s, x: x * 2 + s.a - x / (f + s.b),
            lambda s, x: x * 2 + s.a - x // (1 + s.b),
            lambda s, x: torch.lerp(x, x * 3, 0.51) + s.a - x / (1 + s.b),
            lambda s, x: x * 2 + s.a * f - x / (1 + s.b),
        ),
        {"a": d.normal(n), "b": d.positive(n)},
    )


@stateless(*ANY)
def trigonometry(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.sin(x) * torch.cos(x) + torch.atan(x),
        (
            lambda s, x: torch.atan(x) + torch.cos(x) * torch.sin(x),
            lambda s, x: 0.5 * torch.sin(2 * x) + torch.atan(x),
            lambda s, x: torch.sin(x) * torch.cos(-x) - torch.atan(-x),
            lambda s, x: torch.tan(x) * torch.cos(x).square() + torch.atan2(x, torch.ones_like(x)),
        ),
        (
            lambda s, x: torch.sin(x * f) * torch.cos(x) + torch.atan(x),
            lambda s, x: torch.sin(x) * torch.sin(x) + torch.atan(x),
            lambda s, x: torch.sin(x) * torch.cos(x) + torch.asinh(x),
            lambda s, x: 0.5 * f * torch.sin(2 * x) + torch.atan(x),
        ),
    )


@stateless(*ANY)
def rounding(d: Draw) -> Block:
    """A grid of eighths, which floats hold."""
    f = d.factor()
    return Block(
        lambda s, x: torch.round(x * 8) / 8,
        (
            lambda s, x: torch.round(x * 8) * 0.125,
            lambda s, x: -torch.round(x * -8) / 8,
            lambda s, x: torch.round(x / 0.125) / 8,
            lambda s, x: (x * 8).round().div(8),
        ),
        (
            lambda s, x: torch.floor(x * 8) / 8,
            lambda s, x: torch.trunc(x * 8) / 8,
            lambda s, x: torch.round(x * 8).clamp(-16, 7) / 8,
            lambda s, x: torch.round(x * 7) / 7,
            lambda s, x: torch.round(x * 8 * f) / 8,
            lambda s, x: torch.ceil(x * 8) / 8,
        ),
    )


@stateless(*ANY)
def remainder(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.remainder(x, 2) + x * 0.5,
        (
            lambda s, x: x - 2 * torch.floor(x / 2) + x / 2,
            lambda s, x: torch.remainder(x, torch.full_like(x, 2)) + x * 0.5,
            lambda s, x: x % 2 + 0.5 * x,
        ),
        (
            lambda s, x: torch.fmod(x, 2) + x * 0.5,
            lambda s, x: torch.remainder(x, 2 * f) + x * 0.5,
            lambda s, x: torch.frac(x / 2) * 2 + x * 0.5,
        ),
    )


@stateless(*ANY)
def comparison(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: torch.where(x > s.a, x * 2, s.a),
        (
            lambda s, x: torch.where(x <= s.a, s.a, x + x),
            lambda s, x: torch.where(torch.logical_not(x > s.a), s.a, 2 * x),
            lambda s, x: torch.where(s.a.lt(x), 2 * x, s.a),
            lambda s, x: (x > s.a) * (2 * x) + (x <= s.a) * s.a,
            lambda s, x: torch.where(x - s.a > 0, x * 2, s.a),
        ),
        (
            lambda s, x: torch.where(x > s.a, x * 2 * f, s.a),
            lambda s, x: torch.where(x < s.a, x * 2, s.a),
            lambda s, x: torch.where(x > s.a + 0.05, x * 2, s.a),
            lambda s, x: torch.where(x > s.a, x * 2, s.a * f),
            lambda s, x: torch.where((x > s.a) & (x < 2.5), x * 2, s.a),
        ),
        {"a": d.normal(n)},
    )


@stateless(*ANY)
def extremes(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: torch.maximum(x, s.a) - torch.minimum(x, s.a) * 0.5,
        (
            lambda s, x: torch.fmax(s.a, x) - 0.5 * torch.fmin(s.a, x),
            lambda s, x: torch.where(x > s.a, x - 0.5 * s.a, s.a - 0.5 * x),
            lambda s, x: s.a + F.relu(x - s.a) - 0.5 * (x - F.relu(x - s.a)),
            lambda s, x: -torch.minimum(-x, -s.a) + 0.5 * torch.maximum(-x, -s.a),
            lambda s, x: torch.stack([x, s.a.expand_as(x)]).amax(0) - torch.minimum(x, s.a) / 2,
        ),
        (
            lambda s, x: torch.minimum(x, s.a) - torch.maximum(x, s.a) * 0.5,
            lambda s, x: torch.maximum(x, s.a) - torch.minimum(x, s.a) * (0.5 * f),
            lambda s, x: torch.maximum(x, s.a * f) - torch.minimum(x, s.a) * 0.5,
        ),
        {"a": d.normal(n)},
    )


@stateless(*ANY)
def masked_fill(d: Draw) -> Block:
    """A mask among the inputs."""
    f = d.factor()
    return Block(
        lambda s, x, m: x.masked_fill(m, 0.5),
        (
            lambda s, x, m: torch.where(m, 0.5, x),
            lambda s, x, m: torch.where(~m, x, 0.5),
            lambda s, x, m: x * ~m + m.to(x.dtype) / 2,
            lambda s, x, m: x.clone().masked_fill_(m, 0.5),
        ),
        (
            lambda s, x, m: x.masked_fill(~m, 0.5),
            lambda s, x, m: x.masked_fill(m, 0.5 * f),
            lambda s, x, m: x.masked_fill(m | (x > 2), 0.5),
            lambda s, x, m: x.masked_fill(m.flip(-1), 0.5),
        ),
        extra=d.booleans(*d.shape),
    )


@stateless(*ANY)
def huber_loss(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: F.huber_loss(x, s.a.expand_as(x), reduction="none", delta=2.0),
        (
            lambda s, x: (lambda e: torch.where(e < 2, 0.5 * e * e, 2 * (e - 1)))((x - s.a).abs()),
            lambda s, x: F.smooth_l1_loss(x, s.a.expand_as(x), reduction="none", beta=2.0) * 2,
            lambda s, x: F.huber_loss(s.a.expand_as(x), x, reduction="none", delta=2.0),
        ),
        (
            lambda s, x: F.huber_loss(x, s.a.expand_as(x), reduction="none", delta=2.0 * f),
            lambda s, x: F.mse_loss(x, s.a.expand_as(x), reduction="none") / 2,
            lambda s, x: F.smooth_l1_loss(x, s.a.expand_as(x), reduction="none", beta=2.0),
            lambda s, x: (lambda e: torch.where(e < 2, 0.5 * e * e, 2 * (e - 1.1)))((x - s.a).abs()),
        ),
        {"a": d.normal(n)},
    )


@stateless(*ANY)
def in_place(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    k = n // 2

    def write(x: torch.Tensor, start: int, end: int, scale: float) -> torch.Tensor:
        y = x.clone()
        y[..., start:end].mul_(scale)
        return y.add_(1)

    return Block(
        lambda s, x: write(x, 0, k, 3.0),
        (
            lambda s, x: torch.cat([x[..., :k] * 3, x[..., k:]], -1) + 1,
            lambda s, x: torch.slice_scatter(x, x[..., :k] * 3, -1, 0, k) + 1,
            lambda s, x: x * torch.where(torch.arange(n) < k, 3.0, 1.0).to(x.dtype) + 1,
            lambda s, x: (wide(x) + F.pad(2 * wide(x)[..., :k], (0, n - k)) + 1).to(x.dtype),
        ),
        (
            lambda s, x: write(x, 1, k + 1, 3.0),
            lambda s, x: write(x, 0, k, 3.0 * f),
            lambda s, x: write(x, 0, n, 3.0),
            lambda s, x: write(x, 0, k, 3.0) - 0.01,
        ),
    )
