"""Layers with weights: linear, convolutions, normalizations, attention, embeddings."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.volume.block import IMAGE, ROWS, SEQUENCE, WIDE, Block, Draw, stateless


@stateless(*WIDE)
def linear(d: Draw) -> Block:
    f, k = d.factor(), d.width // 2
    return Block(
        lambda s, x: F.linear(x, s.w, s.b),
        (
            lambda s, x: s.b + x @ s.w.t(),
            lambda s, x: torch.einsum("...i,oi->...o", x, s.w) + s.b,
            lambda s, x: torch.addmm(s.b, x.flatten(0, -2), s.w.t()).reshape(x.shape),
            lambda s, x: torch.cat([F.linear(x, s.w[:k], s.b[:k]), F.linear(x, s.w[k:], s.b[k:])], -1),
            lambda s, x: F.linear(x[..., :k], s.w[:, :k]) + F.linear(x[..., k:], s.w[:, k:], s.b),
            lambda s, x: F.linear(x * 4, s.w * 0.25, s.b),
            lambda s, x: (s.w @ x.mT).mT + s.b,
            lambda s, x: F.linear(x.flip(-1), s.w.flip(1), s.b),
            lambda s, x: F.linear(x, s.w.flip(0), s.b.flip(0)).flip(-1),
            lambda s, x: (x[..., None, :] * s.w).sum(-1) + s.b,
        ),
        (
            lambda s, x: F.linear(x, s.w),
            lambda s, x: F.linear(x, s.w * f, s.b),
            lambda s, x: F.linear(x, s.w, s.b * f),
            lambda s, x: F.linear(x, s.w.t(), s.b),
            lambda s, x: F.linear(x, s.w.flip(0), s.b.flip(0)),
            lambda s, x: F.linear(x, s.w, s.b.roll(1)),
            lambda s, x: F.linear(x[..., :k], s.w[:, :k]) + F.linear(x[..., k:], s.w[:, k:] * f, s.b),
            lambda s, x: torch.addmm(s.b, x.flatten(0, -2), s.w.t(), beta=f).reshape(x.shape),
        ),
        {"w": d.normal(d.width, d.width, scale=0.4), "b": d.normal(d.width)},
    )


@stateless(*WIDE)
def scale_and_linear(d: Draw) -> Block:
    """A scale that a linear absorbs."""
    f = d.factor()
    return Block(
        lambda s, x: F.linear(x * s.s, s.w, s.b),
        (lambda s, x: F.linear(x, s.w * s.s, s.b), lambda s, x: F.linear(x, s.s * s.w) + s.b),
        (lambda s, x: F.linear(x, s.w * s.s[:, None], s.b), lambda s, x: F.linear(x, s.w * s.s * f, s.b)),
        {"w": d.normal(d.width, d.width, scale=0.4), "b": d.normal(d.width), "s": d.positive(d.width)},
        lambda s: {"folded": s["w"] * s["s"]},
        folded=(lambda s, x: F.linear(x, s.folded, s.b),),
        misfolded=(lambda s, x: F.linear(x * s.s, s.folded, s.b),),
    )


@stateless(*WIDE)
def linear_and_shift(d: Draw) -> Block:
    """An affine of the outputs that a linear absorbs."""
    f = d.factor()
    return Block(
        lambda s, x: F.linear(x, s.w, s.b) * s.s + s.t,
        (lambda s, x: F.linear(x, s.w * s.s[:, None], s.b * s.s + s.t),),
        (
            lambda s, x: F.linear(x, s.w * s.s[:, None], s.b + s.t),
            lambda s, x: F.linear(x, s.w * s.s[:, None], s.b * s.s),
            lambda s, x: F.linear(x, s.w * (f * s.s[:, None]), s.b * s.s + s.t),
        ),
        {
            "w": d.normal(d.width, d.width, scale=0.4),
            "b": d.normal(d.width),
            "s": d.positive(d.width),
            "t": d.normal(d.width),
        },
        lambda s: {"folded": s["w"] * s["s"][:, None], "shift": s["b"] * s["s"] + s["t"]},
        folded=(lambda s, x: F.linear(x, s.folded, s.shift),),
        misfolded=(lambda s, x: F.linear(x, s.folded, -s.shift),),
    )


@stateless(*WIDE)
def low_rank(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x + F.linear(F.linear(x, s.a), s.b) * 0.5,
        (
            lambda s, x: x + F.linear(x, (s.b @ s.a) * 0.5),
            lambda s, x: torch.add(x, (x @ s.a.mT) @ s.b.mT, alpha=0.5),
            lambda s, x: x + torch.einsum("...i,ri,or->...o", x * 0.5, s.a, s.b),
        ),
        (
            lambda s, x: x + F.linear(F.linear(x, s.a), s.b) * (0.5 * f),
            lambda s, x: x + F.linear(F.linear(x, s.b.t()), s.a.t()) * 0.5,
            lambda s, x: F.linear(F.linear(x, s.a), s.b) * 0.5,
        ),
        {"a": d.normal(3, d.width, scale=0.5), "b": d.normal(d.width, 3, scale=0.5)},
    )


@stateless(*WIDE)
def bilinear(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.bilinear(x, x.flip(-1), s.w, s.b),
        (
            lambda s, x: torch.einsum("...i,oij,...j->...o", x, s.w, x.flip(-1)) + s.b,
            lambda s, x: F.bilinear(x.flip(-1), x, s.w.mT, s.b),
        ),
        (
            lambda s, x: F.bilinear(x, x.flip(-1), s.w.mT, s.b),
            lambda s, x: F.bilinear(x, x, s.w, s.b),
            lambda s, x: F.bilinear(x * f, x.flip(-1), s.w, s.b),
        ),
        {"w": d.normal(d.width, d.width, d.width, scale=0.2), "b": d.normal(d.width)},
    )


def _layer_norm(x: Tensor, s: Any, eps: float = 1e-5, correction: int = 0) -> Any:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(x.var(-1, keepdim=True, correction=correction) + eps) * s.w + s.b


@stateless(*WIDE)
def layer_norm(d: Draw) -> Block:
    f, n = d.factor(), (d.width,)
    return Block(
        lambda s, x: F.layer_norm(x, n, s.w, s.b, 1e-5),
        (
            lambda s, x: _layer_norm(x, s),
            lambda s, x: F.layer_norm(x, n, None, None, 1e-5) * s.w + s.b,
            lambda s, x: F.layer_norm(x + 3, n, s.w, s.b, 1e-5),
            lambda s, x: F.layer_norm(-x, n, -s.w, s.b, 1e-5),
            lambda s, x: torch.native_layer_norm(x, n, s.w, s.b, 1e-5)[0],
        ),
        (
            lambda s, x: F.layer_norm(x, n, s.w, s.b, 1e-2),
            lambda s, x: F.layer_norm(x, n, s.w, None, 1e-5),
            lambda s, x: F.layer_norm(x, n, s.w * f, s.b, 1e-5),
            lambda s, x: F.layer_norm(x, n, s.w.flip(0), s.b, 1e-5),
            lambda s, x: _layer_norm(x, s, correction=1),
            lambda s, x: F.rms_norm(x, n, s.w, 1e-5) + s.b,
            lambda s, x: F.layer_norm(x.mT, n, s.w, s.b, 1e-5).mT,
        ),
        {"w": d.positive(d.width), "b": d.normal(d.width)},
    )


@stateless(*WIDE)
def rms_norm(d: Draw) -> Block:
    f, n = d.factor(), (d.width,)
    return Block(
        lambda s, x: F.rms_norm(x, n, s.w, 1e-5),
        (
            lambda s, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * s.w,
            lambda s, x: x / torch.sqrt(torch.square(x).sum(-1, keepdim=True) / d.width + 1e-5) * s.w,
            lambda s, x: F.rms_norm(x, n, None, 1e-5) * s.w,
        ),
        (
            lambda s, x: F.rms_norm(x, n, s.w, 1e-2),
            lambda s, x: F.rms_norm(x, n, s.w * f, 1e-5),
            lambda s, x: F.rms_norm(x, n, s.w + 1, 1e-5),
            lambda s, x: F.rms_norm(x - x.mean(-1, keepdim=True), n, s.w, 1e-5),
            lambda s, x: x / torch.sqrt(torch.square(x).sum(-1, keepdim=True) / (d.width - 1) + 1e-5) * s.w,
        ),
        {"w": d.positive(d.width)},
    )


def _group_norm(x: Tensor, s: Any, groups: int, correction: int = 0) -> Any:
    parts = x.reshape(x.shape[0], groups, -1)
    var, mean = torch.var_mean(parts, -1, keepdim=True, correction=correction)
    normal = ((parts - mean) / torch.sqrt(var + 1e-5)).reshape(x.shape)
    return normal * s.w[:, None, None] + s.b[:, None, None]


@stateless(IMAGE)
def group_norm(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.group_norm(x, 2, s.w, s.b, 1e-5),
        (
            lambda s, x: _group_norm(x, s, 2),
            lambda s, x: F.group_norm(x, 2, None, None, 1e-5) * s.w[:, None, None] + s.b[:, None, None],
            lambda s, x: torch.cat(
                [F.group_norm(x[:, g], 1, s.w[g], s.b[g], 1e-5) for g in (slice(0, 2), slice(2, 4))], 1
            ),
        ),
        (
            lambda s, x: F.group_norm(x, 4, s.w, s.b, 1e-5),
            lambda s, x: F.group_norm(x, 2, s.w, s.b, 1e-2),
            lambda s, x: F.group_norm(x, 2, s.w * f, s.b, 1e-5),
            lambda s, x: F.group_norm(x, 2, s.b, s.w, 1e-5),
            lambda s, x: _group_norm(x, s, 2, correction=1),
        ),
        {"w": d.positive(4), "b": d.normal(4)},
    )


@stateless(IMAGE)
def instance_norm(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.instance_norm(x, weight=s.w, bias=s.b),
        (lambda s, x: F.group_norm(x, 4, s.w, s.b, 1e-5), lambda s, x: _group_norm(x, s, 4)),
        (
            lambda s, x: F.group_norm(x, 1, s.w, s.b, 1e-5),
            lambda s, x: F.instance_norm(x, weight=s.w * f, bias=s.b),
            lambda s, x: F.instance_norm(x, weight=s.w, bias=s.b, eps=1e-2),
            lambda s, x: F.instance_norm(x, weight=s.w),
        ),
        {"w": d.positive(4), "b": d.normal(4)},
    )


@stateless(ROWS, IMAGE)
def batch_norm(d: Draw) -> Block:
    """With fixed statistics."""
    f, n, v = d.factor(), d.width, d.vector

    def norm(x: Tensor, s: Any, mean: Any, var: Any, w: Any, b: Any, eps: float = 1e-5) -> Tensor:
        return F.batch_norm(x, mean, var, w, b, False, 0.1, eps)

    return Block(
        lambda s, x: norm(x, s, s.m, s.v, s.w, s.b),
        (
            lambda s, x: (x - s.m.view(v)) / torch.sqrt(s.v + 1e-5).view(v) * s.w.view(v) + s.b.view(v),
            lambda s, x: (lambda a: x * a + (s.b.view(v) - s.m.view(v) * a))((s.w * (s.v + 1e-5).rsqrt()).view(v)),
            lambda s, x: norm(x - s.m.view(v), s, torch.zeros_like(s.m), s.v, s.w, s.b),
        ),
        (
            lambda s, x: norm(x, s, s.m, s.v, s.w, s.b, 1e-2),
            lambda s, x: norm(x, s, s.m * f, s.v, s.w, s.b),
            lambda s, x: norm(x, s, s.m, s.v * f, s.w, s.b),
            lambda s, x: norm(x, s, s.m, s.v, s.w, None),
            lambda s, x: norm(x, s, s.m, s.v, None, s.b),
            lambda s, x: (x - s.m.view(v)) / (s.v + 1e-5).view(v) * s.w.view(v) + s.b.view(v),
        ),
        {"m": d.normal(n), "v": d.positive(n), "w": d.positive(n), "b": d.normal(n)},
        lambda s: (lambda a: {"scale": a, "shift": s["b"] - s["m"] * a})(s["w"] / torch.sqrt(s["v"] + 1e-5)),
        folded=(lambda s, x: x * s.scale.view(v) + s.shift.view(v),),
        misfolded=(lambda s, x: x * s.scale.view(v) - s.shift.view(v),),
    )


@stateless(IMAGE)
def conv2d(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.conv2d(x, s.w, s.b, padding=1),
        (
            lambda s, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), s.w, s.b),
            lambda s, x: F.conv2d(x[:, :2], s.w[:, :2], s.b, padding=1) + F.conv2d(x[:, 2:], s.w[:, 2:], padding=1),
            lambda s, x: torch.cat([F.conv2d(x, w, b, padding=1) for w, b in zip(s.w.chunk(2), s.b.chunk(2))], 1),
            lambda s, x: F.conv2d(x * 0.5, s.w * 2, padding=1) + s.b[:, None, None],
            lambda s, x: (s.w.flatten(1) @ F.unfold(x, 3, padding=1)).reshape(x.shape) + s.b[:, None, None],
            lambda s, x: F.conv2d(x.mT, s.w.mT, s.b, padding="same").mT,
            lambda s, x: F.conv2d(x.flip(-1), s.w.flip(-1), s.b, padding=1).flip(-1),
            lambda s, x: F.conv_transpose2d(x, s.w.transpose(0, 1).flip(2, 3), s.b, padding=1),
            lambda s, x: F.conv3d(x.unsqueeze(2), s.w.unsqueeze(2), s.b, padding=(0, 1, 1)).squeeze(2),
        ),
        (
            lambda s, x: F.conv2d(x, s.w, None, padding=1),
            lambda s, x: F.conv2d(x, s.w * f, s.b, padding=1),
            lambda s, x: F.conv2d(x, s.w.mT, s.b, padding=1),
            lambda s, x: F.conv2d(x, s.w.flip(3), s.b, padding=1),
            lambda s, x: F.conv2d(x, s.w, s.b, padding=2, dilation=2),
            lambda s, x: F.conv2d(F.pad(x, (1, 1, 1, 1), "replicate"), s.w, s.b),
            lambda s, x: F.conv2d(F.pad(x, (2, 0, 1, 1)), s.w, s.b),
            lambda s, x: F.conv2d(x, torch.cat([s.w[:3], -s.w[3:]]), s.b, padding=1),
        ),
        {"w": d.normal(4, 4, 3, 3, scale=0.2), "b": d.normal(4)},
    )


@stateless(IMAGE)
def conv2d_and_batch_norm(d: Draw) -> Block:
    """The fold that deployment is about; the folded weights are rounded."""
    f = d.factor()

    def fold(s: Any, eps: float = 1e-5) -> dict[str, Tensor]:
        a = s["g"] / torch.sqrt(s["v"] + eps)
        return {"folded": s["w"] * a[:, None, None, None], "shift": (s["b"] - s["m"]) * a + s["t"]}

    return Block(
        lambda s, x: F.batch_norm(F.conv2d(x, s.w, s.b, padding=1), s.m, s.v, s.g, s.t, False, 0.1, 1e-5),
        (
            lambda s, x: (lambda a: F.conv2d(x, s.w * a[:, None, None, None], (s.b - s.m) * a + s.t, padding=1))(
                s.g * torch.rsqrt(s.v + 1e-5)
            ),
        ),
        (
            lambda s, x: F.batch_norm(F.conv2d(x, s.w, None, padding=1), s.m, s.v, s.g, s.t, False, 0.1, 1e-5),
            lambda s, x: F.batch_norm(F.conv2d(x, s.w * f, s.b, padding=1), s.m, s.v, s.g, s.t, False, 0.1, 1e-5),
            lambda s, x: F.conv2d(F.batch_norm(x, s.m, s.v, s.g, s.t, False, 0.1, 1e-5), s.w, s.b, padding=1),
        ),
        {
            "w": d.normal(4, 4, 3, 3, scale=0.2),
            "b": d.normal(4),
            "m": d.normal(4),
            "v": d.positive(4),
            "g": d.positive(4),
            "t": d.normal(4),
        },
        fold,
        folded=(lambda s, x: F.conv2d(x, s.folded, s.shift, padding=1),),
        misfolded=(
            lambda s, x: F.conv2d(x, s.folded, s.shift.flip(0), padding=1),
            lambda s, x: F.conv2d(x, s.w, s.shift, padding=1),
        ),
    )


@stateless(IMAGE)
def depthwise_conv2d(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.conv2d(x, s.w, padding=1, groups=4),
        (
            lambda s, x: torch.cat([F.conv2d(x[:, i : i + 1], s.w[i : i + 1], padding=1) for i in range(4)], 1),
            lambda s, x: (
                (F.unfold(x, 3, padding=1).reshape(2, 4, 9, 36) * s.w.reshape(4, 9, 1)).sum(2).reshape(x.shape)
            ),
        ),
        (
            lambda s, x: F.conv2d(x, s.w.flip(0), padding=1, groups=4),
            lambda s, x: F.conv2d(x, s.w * f, padding=1, groups=4),
            lambda s, x: F.conv_transpose2d(x, s.w, padding=1, groups=4),
        ),
        {"w": d.normal(4, 1, 3, 3, scale=0.4)},
    )


@stateless(IMAGE)
def conv3d(d: Draw) -> Block:
    """Channels as depth."""
    f = d.factor()
    return Block(
        lambda s, x: F.conv3d(x[:, None], s.w, s.b, padding=1)[:, 0],
        (
            lambda s, x: F.conv3d(F.pad(x[:, None], (1, 1, 1, 1, 1, 1)), s.w, s.b).squeeze(1),
            lambda s, x: (
                sum(
                    F.conv2d(F.pad(x, (0, 0, 0, 0, 1, 1))[:, k : k + 4].reshape(8, 1, 6, 6), s.w[:, :, k], padding=1)
                    for k in range(3)
                ).reshape(x.shape)  # type: ignore[union-attr]
                + s.b
            ),
        ),
        (
            lambda s, x: F.conv3d(x[:, None], s.w * f, s.b, padding=1)[:, 0],
            lambda s, x: F.conv3d(x[:, None], s.w, None, padding=1)[:, 0],
            lambda s, x: F.conv3d(x[:, None], s.w.flip(2), s.b, padding=1)[:, 0],
        ),
        {"w": d.normal(1, 1, 3, 3, 3, scale=0.3), "b": d.normal(1)},
    )


@stateless(SEQUENCE)
def causal_conv1d(d: Draw) -> Block:
    f = d.factor()

    def convolve(x: Tensor, w: Tensor, pad: tuple[int, int]) -> Tensor:
        return F.conv1d(F.pad(x.transpose(1, 2), pad), w[:, None], groups=8).transpose(1, 2)

    return Block(
        lambda s, x: convolve(x, s.w, (2, 0)),
        (
            lambda s, x: F.conv1d(x.mT, s.w[:, None], padding=2, groups=8)[..., :-2].mT,
            lambda s, x: sum(s.w[:, k] * F.pad(x, (0, 0, 2 - k, 0))[:, :8] for k in range(3)),
            lambda s, x: convolve(x.flip(1), s.w.flip(1), (0, 2)).flip(1),
        ),
        (
            lambda s, x: convolve(x, s.w, (1, 1)),
            lambda s, x: convolve(x, s.w.flip(1), (2, 0)),
            lambda s, x: convolve(x, s.w * f, (2, 0)),
            lambda s, x: convolve(x, s.w, (0, 2)),
        ),
        {"w": d.normal(8, 3, scale=0.6)},
    )


def _heads(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w).reshape(2, 8, 2, 4).transpose(1, 2)


def _attend(s: Any, x: Tensor, scale: float = 0.5, **kwargs: Any) -> Tensor:
    q, k, v = (_heads(x, w) for w in (s.q, s.k, s.v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale, **kwargs).transpose(1, 2).reshape(x.shape)


def _scores(s: Any, x: Tensor) -> Tensor:
    return _heads(x, s.q) @ _heads(x, s.k).mT * 0.5


def _weighted(s: Any, x: Tensor, weights: Tensor) -> Tensor:
    return (weights @ _heads(x, s.v)).transpose(1, 2).reshape(x.shape)


def _fused(s: Any, x: Tensor) -> Tensor:
    q, k, v = F.linear(x, torch.cat([s.q, s.k, s.v])).reshape(2, 8, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind()
    weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q / 2, k), -1)
    return torch.einsum("bhij,bhjd->bihd", weights, v).reshape(x.shape)


@stateless(SEQUENCE)
def attention(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: _attend(s, x),
        (
            lambda s, x: _weighted(s, x, torch.softmax(_scores(s, x), -1)),
            _fused,
            lambda s, x: _weighted(s, x, F.softmax(_scores(s, x).mT, -2).mT),
            lambda s, x: _attend(s, x, attn_mask=torch.zeros(8, 8, dtype=x.dtype)),
        ),
        (
            lambda s, x: _attend(s, x, 1 / 1.9),
            lambda s, x: _attend(s, x, 0.5 * f),
            lambda s, x: _attend(s, x, is_causal=True),
            lambda s, x: _weighted(s, x, torch.softmax(_scores(s, x).mT, -1)),
            lambda s, x: _weighted(s, x, torch.softmax(_scores(s, x), -2)),
            lambda s, x: _weighted(s, x * f, torch.softmax(_scores(s, x), -1)),
        ),
        {name: d.normal(8, 8, scale=0.5) for name in "qkv"},
    )


def _masked(s: Any, x: Tensor, diagonal: int, fill: float = -math.inf) -> Tensor:
    later = torch.ones(8, 8, dtype=torch.bool).triu(diagonal)
    return _weighted(s, x, torch.softmax(_scores(s, x).masked_fill(later, fill), -1))


@stateless(SEQUENCE)
def causal_attention(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: _attend(s, x, is_causal=True),
        (
            lambda s, x: _masked(s, x, 1),
            lambda s, x: _attend(s, x, attn_mask=torch.ones(8, 8, dtype=torch.bool).tril()),
            lambda s, x: _attend(s, x.flip(1), attn_mask=torch.ones(8, 8, dtype=torch.bool).triu()).flip(1),
        ),
        (
            lambda s, x: _masked(s, x, 2),
            lambda s, x: _attend(s, x),
            lambda s, x: _attend(s, x, 0.5 * f, is_causal=True),
            lambda s, x: _masked(s, x, 1, -3.0),
            lambda s, x: _weighted(s, x, torch.softmax(_scores(s, x), -1).tril()),
        ),
        {name: d.normal(8, 8, scale=0.5) for name in "qkv"},
    )


@stateless(SEQUENCE)
def rotary_embedding(d: Draw) -> Block:
    angles = torch.arange(8.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03], dtype=torch.float64)

    def rotate(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * c - b * s, b * c + a * s], -1)

    def by_half(s: Any, x: Tensor) -> Any:
        turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
        return x * torch.cat([s.c, s.c], -1) + turned * s.s.repeat(1, 2)

    def interleaved(s: Any, x: Tensor) -> Tensor:
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * s.c - b * s.s, b * s.c + a * s.s], -1).flatten(-2)

    return Block(
        lambda s, x: rotate(x, s.c, s.s),
        (
            by_half,
            lambda s, x: interleaved(s, x.unflatten(-1, (2, 4)).mT.flatten(-2)).unflatten(-1, (4, 2)).mT.flatten(-2),
        ),
        (
            lambda s, x: rotate(x, s.c, -s.s),
            lambda s, x: rotate(x, s.s, s.c),
            interleaved,
            lambda s, x: rotate(x, s.c.roll(1, 0), s.s.roll(1, 0)),
        ),
        {"c": angles.cos(), "s": angles.sin()},
    )


@stateless(SEQUENCE)
def embedding(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x, i: x + F.embedding(i, s.w),
        (
            lambda s, x, i: s.w[i] + x,
            lambda s, x, i: x + s.w.index_select(0, i.flatten()).reshape(x.shape),
            lambda s, x, i: x + F.one_hot(i, 10).to(x.dtype) @ s.w,
            lambda s, x, i: x + s.w.gather(0, i.reshape(16, 1).expand(16, 8)).unflatten(0, (2, 8)),
            lambda s, x, i: torch.embedding(torch.cat([s.w, s.w * 2]), i) + x,
        ),
        (
            lambda s, x, i: x + F.embedding((i + 1) % 10, s.w),
            lambda s, x, i: x + F.embedding(i, s.w) * f,
            lambda s, x, i: x + F.embedding(i, s.w.flip(1)),
            lambda s, x, i: x + F.embedding(i.clamp(max=8), s.w),
            lambda s, x, i: x + F.embedding(i, torch.cat([s.w[:9], s.w[:1]])),
        ),
        {"w": d.normal(10, 8)},
        extra=d.integers(10, 2, 8),
    )


@stateless(ROWS)
def mixture(d: Draw) -> Block:
    """Two experts, weighted by a softmax."""
    f = d.factor()

    def mix(s: Any, x: Tensor, gate: Tensor) -> Tensor:
        return gate[:, :1] * F.linear(x, s.a) + gate[:, 1:] * F.linear(x, s.b)

    return Block(
        lambda s, x: mix(s, x, torch.softmax(F.linear(x, s.g), -1)),
        (
            lambda s, x: torch.einsum("ne,eoi,ni->no", torch.softmax(x @ s.g.t(), -1), torch.stack([s.a, s.b]), x),
            lambda s, x: (lambda p: torch.lerp(F.linear(x, s.b), F.linear(x, s.a), p))(
                torch.softmax(F.linear(x, s.g), -1)[:, :1]
            ),
        ),
        (
            lambda s, x: mix(s, x, torch.softmax(F.linear(x, s.g), -1).flip(-1)),
            lambda s, x: mix(s, x, torch.softmax(F.linear(x, s.g) * f, -1)),
            lambda s, x: mix(s, x, torch.sigmoid(F.linear(x, s.g))),
        ),
        {"a": d.normal(8, 8, scale=0.4), "b": d.normal(8, 8, scale=0.4), "g": d.normal(2, 8, scale=0.4)},
    )


@stateless(SEQUENCE)
def gated_linear(d: Draw) -> Block:
    f = d.factor()

    def halves(s: Any, x: Tensor) -> Any:
        return F.linear(x, s.w).chunk(2, -1)

    return Block(
        lambda s, x: F.glu(F.linear(x, s.w), -1),
        (
            lambda s, x: (lambda a, b: a * torch.sigmoid(b))(*halves(s, x)),
            lambda s, x: F.linear(x, s.w[:8]) * F.linear(x, s.w[8:]).sigmoid(),
        ),
        (
            lambda s, x: (lambda a, b: b * torch.sigmoid(a))(*halves(s, x)),
            lambda s, x: F.linear(x, s.w[:8]) * F.silu(F.linear(x, s.w[8:])),
            lambda s, x: F.linear(x, s.w[:8]) * torch.sigmoid(F.linear(x, s.w[8:]) * f),
        ),
        {"w": d.normal(16, 8, scale=0.4)},
    )
