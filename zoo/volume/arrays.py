"""Operators on whole axes: reductions, softmax, sorting, indexing, moving, padding, pooling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.volume.block import ANY, IMAGE, ROWS, SEQUENCE, WIDE, Block, Draw, stateless, wide


@stateless(*ANY)
def mean(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: x - x.mean(-1, keepdim=True),
        (
            lambda s, x: x - x.sum(-1, keepdim=True) / n,
            lambda s, x: (wide(x) - wide(x).mean(-1, keepdim=True)).to(x.dtype),
            lambda s, x: x - x @ torch.full((n, n), 1 / n, dtype=x.dtype),
            lambda s, x: x - torch.stack(x.unbind(-1)).mean(0).unsqueeze(-1),
            lambda s, x: x - (x.mT.mean(-2, keepdim=True)).mT,
        ),
        (
            lambda s, x: x - x.sum(-1, keepdim=True) / (n - 1),
            lambda s, x: x - x.mean(-2, keepdim=True),
            lambda s, x: x - x.mean(-1, keepdim=True) * f,
            lambda s, x: x - x.mean(),
            lambda s, x: x - x.median(-1, keepdim=True).values,
        ),
    )


@stateless(*ANY)
def standard_deviation(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: x / (x.std(-1, keepdim=True) + 1),
        (
            lambda s, x: x / (x.var(-1, keepdim=True).sqrt() + 1),
            lambda s, x: x / (1 + ((x - x.mean(-1, keepdim=True)).square().sum(-1, keepdim=True) / (n - 1)).sqrt()),
            lambda s, x: x * (torch.std_mean(x + 1, -1, keepdim=True)[0] + 1).reciprocal(),
        ),
        (
            lambda s, x: x / (x.std(-1, keepdim=True, correction=0) + 1),
            lambda s, x: x / (x.std(-2, keepdim=True) + 1),
            lambda s, x: x / (x.var(-1, keepdim=True) + 1),
            lambda s, x: x / (x.std(-1, keepdim=True) + f),
        ),
    )


@stateless(*ANY)
def sums(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: torch.cumsum(x, -1) + x.sum(-1, keepdim=True),
        (
            lambda s, x: x @ torch.ones(n, n, dtype=x.dtype).triu() + x.sum(-1, keepdim=True),
            lambda s, x: 2 * x.sum(-1, keepdim=True) - x.flip(-1).cumsum(-1).flip(-1) + x,
            lambda s, x: x.mT.cumsum(-2).mT + torch.einsum("...i->...", x).unsqueeze(-1),
        ),
        (
            lambda s, x: torch.cumsum(x, -2) + x.sum(-1, keepdim=True),
            lambda s, x: torch.cumsum(x, -1) - x + x.sum(-1, keepdim=True),
            lambda s, x: torch.cumsum(x, -1) + x.sum(-1, keepdim=True) * f,
            lambda s, x: torch.cumsum(x, -1) + x[..., 1:].sum(-1, keepdim=True),
            lambda s, x: x.flip(-1).cumsum(-1).flip(-1) + x.sum(-1, keepdim=True),
        ),
    )


@stateless(*ANY)
def products(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x + (1 + 0.25 * x[..., :3]).prod(-1, keepdim=True),
        (
            lambda s, x: x + ((1 + 0.25 * x[..., :1]) * (1 + 0.25 * x[..., 1:2])) * (1 + x[..., 2:3] / 4),
            lambda s, x: x + torch.cumprod(1 + 0.25 * x[..., :3], -1)[..., -1:],
        ),
        (
            lambda s, x: x + (1 + 0.25 * x[..., :2]).prod(-1, keepdim=True),
            lambda s, x: x + (1 + 0.25 * x[..., 1:4]).prod(-1, keepdim=True),
            lambda s, x: x + (1 + 0.25 * f * x[..., :3]).prod(-1, keepdim=True),
        ),
    )


@stateless(*ANY)
def amax(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x - 0.5 * x.amax(-1, keepdim=True),
        (
            lambda s, x: x - 0.5 * x.max(-1, keepdim=True).values,
            lambda s, x: x - x.sort(-1).values[..., -1:] / 2,
            lambda s, x: x - 0.5 * x.topk(1, -1).values,
            lambda s, x: x - 0.5 * x.gather(-1, x.argmax(-1, keepdim=True)),
            lambda s, x: x + 0.5 * (-x).amin(-1, keepdim=True),
            lambda s, x: x - 0.5 * x.cummax(-1).values[..., -1:],
        ),
        (
            lambda s, x: x - 0.5 * x.amin(-1, keepdim=True),
            lambda s, x: x - 0.5 * x.amax(-2, keepdim=True),
            lambda s, x: x - 0.5 * f * x.amax(-1, keepdim=True),
            lambda s, x: x - 0.5 * x.abs().amax(-1, keepdim=True),
            lambda s, x: x - 0.5 * x.topk(2, -1).values[..., 1:],
            lambda s, x: x - 0.5 * x[..., 1:].amax(-1, keepdim=True),
        ),
    )


@stateless(*ANY)
def norms(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.normalize(x, dim=-1),
        (
            lambda s, x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12),
            lambda s, x: x / torch.sqrt((x * x).sum(-1, keepdim=True)).clamp(min=1e-12),
            lambda s, x: F.normalize(x.mT, dim=-2).mT,
        ),
        (
            lambda s, x: F.normalize(x, p=1.0, dim=-1),
            lambda s, x: F.normalize(x, dim=-2),
            lambda s, x: x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 0.01),
            lambda s, x: F.normalize(x, dim=-1) * f,
        ),
    )


@stateless(*ANY)
def softmax(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.softmax(x, -1) * x,
        (
            lambda s, x: torch.softmax(x + 3, -1) * x,
            lambda s, x: torch.log_softmax(x, -1).exp() * x,
            lambda s, x: (lambda e: e / e.sum(-1, keepdim=True))(torch.exp(x - x.amax(-1, keepdim=True))) * x,
            lambda s, x: x * torch.exp(x - torch.logsumexp(x, -1, keepdim=True)),
            lambda s, x: x * F.softmin(-x, -1),
            lambda s, x: F.softmax(x.mT, -2).mT * x,
        ),
        (
            lambda s, x: torch.softmax(x, -2) * x,
            lambda s, x: torch.softmax(x * f, -1) * x,
            lambda s, x: torch.softmax(x - x.amax(-2, keepdim=True), -1) * x,
            lambda s, x: torch.softmax(x, -1) * x * f,
            lambda s, x: F.softmin(x, -1) * x,
            lambda s, x: torch.sigmoid(x) * x,
        ),
    )


@stateless(*ANY)
def log_softmax(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.log_softmax(x, -1),
        (
            lambda s, x: x - torch.logsumexp(x, -1, keepdim=True),
            lambda s, x: F.log_softmax(x - x.mean(-1, keepdim=True), -1),
            lambda s, x: torch.log(torch.softmax(x, -1)),
            lambda s, x: x - torch.log(torch.exp(x).sum(-1, keepdim=True)),
        ),
        (
            lambda s, x: F.log_softmax(x, -2),
            lambda s, x: F.log_softmax(x * f, -1),
            lambda s, x: F.logsigmoid(x),
            lambda s, x: x - torch.logsumexp(x[..., 1:], -1, keepdim=True),
        ),
    )


@stateless(*ANY)
def sort(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: torch.sort(x, -1).values * 0.5 + x,
        (
            lambda s, x: x + torch.topk(x, n, -1).values.flip(-1) / 2,
            lambda s, x: x + 0.5 * x.gather(-1, x.argsort(-1)),
            lambda s, x: x - 0.5 * torch.sort(-x, -1, descending=True).values,
        ),
        (
            lambda s, x: torch.sort(x, -1, descending=True).values * 0.5 + x,
            lambda s, x: torch.sort(x, -2).values * 0.5 + x,
            lambda s, x: torch.sort(x, -1).values.roll(1, -1) * 0.5 + x,
            lambda s, x: torch.sort(x, -1).values * (0.5 * f) + x,
        ),
    )


@stateless(*ANY)
def topk(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x + torch.topk(x, 3, -1).values.sum(-1, keepdim=True),
        (
            lambda s, x: x + torch.sort(x, -1, descending=True).values[..., :3].sum(-1, keepdim=True),
            lambda s, x: x - torch.topk(-x, 3, -1, largest=False).values.sum(-1, keepdim=True),
            lambda s, x: x + x.gather(-1, x.topk(3, -1).indices).sum(-1, keepdim=True),
        ),
        (
            lambda s, x: x + torch.topk(x, 4, -1).values[..., 1:].sum(-1, keepdim=True),
            lambda s, x: x + torch.topk(x, 3, -1, largest=False).values.sum(-1, keepdim=True),
            lambda s, x: x + torch.topk(x, 3, -1).values.sum(-1, keepdim=True) * f,
            lambda s, x: x + x[..., :3].sum(-1, keepdim=True),
        ),
    )


@stateless(*ANY)
def permuted(d: Draw) -> Block:
    """A fixed permutation of the last axis."""
    f, n = d.factor(), d.shape[-1]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(d.rng.randrange(1000)))
    return Block(
        lambda s, x: x[..., order] * 2,
        (
            lambda s, x: x.index_select(-1, order) + x.index_select(-1, order),
            lambda s, x: torch.gather(x * 2, -1, order.expand_as(x)),
            lambda s, x: 2 * torch.cat([x[..., i : i + 1] for i in order.tolist()], -1),
            lambda s, x: torch.zeros_like(x).scatter(-1, order.argsort().expand_as(x), x * 2),
            lambda s, x: x @ (2 * torch.eye(n, dtype=x.dtype)[:, order]),
            lambda s, x: torch.zeros_like(x).index_copy(-1, order.argsort(), x).mul(2),
        ),
        (
            lambda s, x: x[..., order.roll(1)] * 2,
            lambda s, x: x[..., order.argsort().flip(0)] * 2,
            lambda s, x: x[..., order] * (2 * f),
            lambda s, x: x[..., (order + 1) % n] * 2,
            lambda s, x: x[..., order.clamp(max=n - 2)] * 2,
        ),
    )


@stateless(*ANY)
def scatter(d: Draw) -> Block:
    """Sums of what falls into one place, given by integers among the inputs."""
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x, i: x + torch.zeros_like(x).scatter_add(-1, i.expand_as(x), x),
        (
            lambda s, x, i: x + torch.zeros_like(x).index_add(-1, i, x),
            lambda s, x, i: x + x @ F.one_hot(i, n).to(x.dtype),
            lambda s, x, i: x.clone().index_add_(-1, i, x),
        ),
        (
            lambda s, x, i: x + torch.zeros_like(x).index_add(-1, (i + 1) % n, x),
            lambda s, x, i: x + torch.zeros_like(x).index_add(-1, i, x, alpha=f),
            lambda s, x, i: x + x @ F.one_hot(i, n).to(x.dtype).t(),
            lambda s, x, i: torch.zeros_like(x).index_add(-1, i, x),
            lambda s, x, i: x + x[..., i],
        ),
        extra=d.integers(n, n),
    )


@stateless(*ANY)
def rolled(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    k = n // 2
    return Block(
        lambda s, x: x + torch.roll(x, k, -1),
        (
            lambda s, x: x + torch.cat([x[..., n - k :], x[..., : n - k]], -1),
            lambda s, x: torch.roll(x, k - n, -1) + x,
            lambda s, x: x + torch.stack(x.split(k, -1)[::-1], -2).flatten(-2),
            lambda s, x: torch.narrow(torch.cat([x, x], -1), -1, k, n) + x,
            lambda s, x: x + x.flip(-1).roll(-k, -1).flip(-1),
        ),
        (
            lambda s, x: x + torch.roll(x, k - 1, -1),
            lambda s, x: x + torch.roll(x, k, -2),
            lambda s, x: x + x.flip(-1),
            lambda s, x: x + torch.roll(x, k, -1) * f,
            lambda s, x: x - torch.roll(x, k, -1),
        ),
    )


@stateless(*ANY)
def transposed(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x + 0.5 * x.transpose(-1, -2),
        (
            lambda s, x: torch.add(x, x.mT, alpha=0.5),
            lambda s, x: x + torch.einsum("...ij->...ji", x) / 2,
            lambda s, x: (x.swapaxes(-1, -2) + 2 * x).mT.contiguous().mT.movedim(-1, -1) * 0.5,
            lambda s, x: x + 0.5 * torch.stack(x.unbind(-1), -2),
        ),
        (
            lambda s, x: x.mT + 0.5 * x,
            lambda s, x: x + 0.5 * x,
            lambda s, x: x + 0.5 * f * x.mT,
            lambda s, x: x + 0.5 * x.mT.flip(-1),
            lambda s, x: x - 0.5 * x.mT,
        ),
    )


@stateless(*ANY)
def triangular(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: torch.tril(x) @ x / n,
        (
            lambda s, x: (x * torch.ones(n, n, dtype=x.dtype).tril()) @ x / n,
            lambda s, x: ((x - torch.triu(x, 1)) / n) @ x,
            lambda s, x: (x.mT @ torch.triu(x.mT)).mT * (1 / n),
            lambda s, x: torch.matmul(x.masked_fill(torch.arange(n)[:, None] < torch.arange(n), 0), x / n),
        ),
        (
            lambda s, x: torch.tril(x, 1) @ x / n,
            lambda s, x: torch.tril(x, -1) @ x / n,
            lambda s, x: torch.triu(x) @ x / n,
            lambda s, x: x @ torch.tril(x) / n,
            lambda s, x: torch.tril(x) @ x * (f / n),
        ),
    )


@stateless(*ANY)
def gram(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]
    return Block(
        lambda s, x: x @ x.mT @ x / n,
        (
            lambda s, x: x @ (x.mT @ x) / n,
            lambda s, x: torch.einsum("...ij,...kj,...kl->...il", x, x, x) / n,
            lambda s, x: torch.linalg.multi_dot([x, x.t(), x]) / n if x.ndim == 2 else (x @ x.mT) @ (x / n),
            lambda s, x: ((x / n) @ x.mT) @ x,
            lambda s, x: ((x[..., :, None, :] * x[..., None, :, :]).sum(-1) @ x) / n,
        ),
        (
            lambda s, x: x.mT @ x @ x / n,
            lambda s, x: x @ x @ x / n,
            lambda s, x: x @ x.mT @ x / (n * f),
            lambda s, x: torch.tril(x @ x.mT) @ x / n,
        ),
    )


@stateless(SEQUENCE)
def batched_matmul(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: torch.baddbmm(s.a, x, x.mT),
        (
            lambda s, x: s.a + torch.bmm(x, x.mT),
            lambda s, x: s.a + torch.einsum("bij,bkj->bik", x, x),
            lambda s, x: torch.stack([torch.addmm(a, y, y.t()) for a, y in zip(s.a, x)]),
            lambda s, x: torch.baddbmm(s.a * 0.5, x, x.mT, beta=2),
        ),
        (
            lambda s, x: torch.baddbmm(s.a, x.mT, x),
            lambda s, x: torch.baddbmm(s.a, x, x.mT, alpha=f),
            lambda s, x: torch.baddbmm(s.a, x, x.mT, beta=f),
            lambda s, x: torch.baddbmm(s.a.flip(0), x, x.mT),
        ),
        {"a": d.normal(2, 8, 8)},
    )


@stateless(*WIDE)
def distances(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.pairwise_distance(x.unsqueeze(-2), s.a, eps=0.0),
        (
            lambda s, x: torch.sqrt((x[..., :, None, :] - s.a).square().sum(-1)),
            lambda s, x: torch.linalg.vector_norm(x.unsqueeze(-2) - s.a, dim=-1),
            lambda s, x: (x[..., None, :] - s.a).norm(dim=-1),
        ),
        (
            lambda s, x: F.pairwise_distance(x.unsqueeze(-2), s.a * f, eps=0.0),
            lambda s, x: (x.unsqueeze(-2) - s.a).abs().sum(-1),
            lambda s, x: torch.sqrt((x[..., None, :] - s.a).square().sum(-1) + 0.1),
        ),
        {"a": d.normal(8, 8)},
    )


@stateless(ROWS)
def nearest(d: Draw) -> Block:
    """The row of a table that is nearest: an index that values make."""
    f = d.factor()

    def score(s: Tensor, x: Tensor) -> Tensor:
        return x @ s.t()

    return Block(
        lambda s, x: x + s.t[score(s.t, x).argmax(-1)],
        (
            lambda s, x: x + s.t.index_select(0, score(s.t, x).max(-1).indices),
            lambda s, x: x + F.embedding((-score(s.t, x)).argmin(-1), s.t),
            lambda s, x: x + F.one_hot(score(s.t, x).argmax(-1), 6).to(x.dtype) @ s.t,
        ),
        (
            lambda s, x: x + s.t[score(s.t, x).argmin(-1)],
            lambda s, x: x + s.t[score(s.t, x).argmax(-1)] * f,
            lambda s, x: x + s.t[score(s.t, x).argmax(-1)].flip(-1),
            lambda s, x: x + s.t[score(s.t, x).topk(2, -1).indices[:, 1]],
            lambda s, x: x + s.t[score(s.t, x[:, :7] @ torch.eye(7, 8, dtype=x.dtype)).argmax(-1)],
        ),
        {"t": d.normal(6, 8)},
    )


@stateless(IMAGE)
def padding(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.pad(x, (1, 1, 1, 1))[..., 2:, 2:] + x,
        (
            lambda s, x: F.pad(x[..., 1:, 1:], (0, 1, 0, 1)) + x,
            lambda s, x: x + torch.constant_pad_nd(x, (-1, 1, -1, 1)),
            lambda s, x: (
                x + torch.cat([x[..., 1:, :], torch.zeros_like(x[..., :1, :])], -2).roll(-1, -1) * (torch.arange(6) < 5)
            ),
        ),
        (
            lambda s, x: F.pad(x, (1, 1, 1, 1), "replicate")[..., 2:, 2:] + x,
            lambda s, x: F.pad(x, (1, 1, 1, 1), "reflect")[..., 2:, 2:] + x,
            lambda s, x: F.pad(x, (1, 1, 1, 1), "circular")[..., 2:, 2:] + x,
            lambda s, x: F.pad(x, (1, 1, 1, 1), value=0.01)[..., 2:, 2:] + x,
            lambda s, x: F.pad(x, (1, 1, 1, 1))[..., 1:-1, 2:] + x,
            lambda s, x: F.pad(x, (1, 1, 1, 1))[..., 2:, 2:] * f + x,
        ),
    )


@stateless(IMAGE)
def max_pool(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.max_pool2d(x, 3, 1, 1),
        (
            lambda s, x: F.max_pool2d(F.max_pool2d(x, (3, 1), 1, (1, 0)), (1, 3), 1, (0, 1)),
            lambda s, x: F.pad(x, (1, 1, 1, 1), value=-math.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((-2, -1)),
            lambda s, x: F.max_pool2d(x, 3, 1, 1, return_indices=True)[0],
        ),
        (
            lambda s, x: F.avg_pool2d(x, 3, 1, 1),
            lambda s, x: -F.max_pool2d(-x, 3, 1, 1),
            lambda s, x: F.max_pool2d(x, (3, 1), 1, (1, 0)),
            lambda s, x: F.max_pool2d(x, 3, 1, 1) * f,
            lambda s, x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
        ),
    )


@stateless(IMAGE)
def average_pool(d: Draw) -> Block:
    f = d.factor()

    def convolve(x: Tensor, weight: float) -> Tensor:
        return F.conv2d(x, torch.full((4, 1, 3, 3), weight, dtype=x.dtype), padding=1, groups=4)

    return Block(
        lambda s, x: x + F.avg_pool2d(x, 3, 1, 1),
        (
            lambda s, x: x + convolve(x, 1.0) / 9,
            lambda s, x: x + F.unfold(x, 3, padding=1).unflatten(1, (4, 9)).mean(2).reshape(x.shape),
            lambda s, x: F.avg_pool2d(x, 3, 1, 1, divisor_override=1) / 9 + x,
        ),
        (
            lambda s, x: x + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
            lambda s, x: x + convolve(x, 1.0) / 8,
            lambda s, x: x + F.avg_pool2d(x, 3, 1, 1) * f,
            lambda s, x: x + F.lp_pool2d(F.pad(x, (1, 1, 1, 1)), 2.0, 3, 1),
        ),
    )


@stateless(IMAGE)
def global_pool(d: Draw) -> Block:
    """A squeeze and an excitation."""
    f = d.factor()
    return Block(
        lambda s, x: x * torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), s.w)),
        (
            lambda s, x: x * torch.sigmoid(F.linear(x.mean((2, 3)), s.w.flatten(1)))[..., None, None],
            lambda s, x: x * torch.sigmoid(F.conv2d(x, s.w).mean((-2, -1), keepdim=True)),
            lambda s, x: x * torch.sigmoid(s.w.squeeze() @ x.flatten(2).sum(-1, keepdim=True) / 36).unsqueeze(-1),
        ),
        (
            lambda s, x: x * torch.sigmoid(F.conv2d(F.adaptive_max_pool2d(x, 1), s.w)),
            lambda s, x: x * torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), s.w.transpose(0, 1))),
            lambda s, x: x * torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), s.w * f)),
            lambda s, x: x * F.hardsigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), s.w)),
            lambda s, x: x * torch.sigmoid(F.conv2d(x.mean(-1, keepdim=True), s.w)),
        ),
        {"w": d.normal(4, 4, 1, 1)},
    )


@stateless(IMAGE)
def resampling(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: x + F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest"),
        (
            lambda s, x: x + F.avg_pool2d(x, 2).repeat_interleave(2, -1).repeat_interleave(2, -2),
            lambda s, x: (
                x + x.reshape(2, 4, 3, 2, 3, 2).mean((3, 5), keepdim=True).expand(2, 4, 3, 2, 3, 2).reshape(x.shape)
            ),
            lambda s, x: x + F.adaptive_avg_pool2d(x, 3)[..., [0, 0, 1, 1, 2, 2], :][..., [0, 0, 1, 1, 2, 2]],
        ),
        (
            lambda s, x: x + F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear"),
            lambda s, x: x + F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="nearest"),
            lambda s, x: x + F.interpolate(x[..., ::2, ::2], scale_factor=2, mode="nearest"),
            lambda s, x: x + f * F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest"),
        ),
    )


@stateless(IMAGE)
def shuffling(d: Draw) -> Block:
    f = d.factor()
    return Block(
        lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2) * s.w, 2),
        (
            lambda s, x: x * s.w.reshape(4, 1, 2, 1, 2).expand(4, 3, 2, 3, 2).reshape(4, 6, 6),
            lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x * 2, 2) * (s.w * 0.5), 2),
            lambda s, x: F.channel_shuffle(F.channel_shuffle(x, 2), 2) * s.w.reshape(4, 2, 2).repeat(1, 3, 3),
        ),
        (
            lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2) * s.w.flip(0), 2),
            lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2) * s.w * f, 2),
            lambda s, x: F.channel_shuffle(F.pixel_shuffle(F.pixel_unshuffle(x, 2) * s.w, 2), 2),
            lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2) * s.w.reshape(4, 2, 2).mT.reshape(16, 1, 1), 2),
        ),
        {"w": d.positive(16, 1, 1)},
    )


@stateless(ROWS)
def quantiles(d: Draw) -> Block:
    """Bins of numbers, and a value of each bin."""
    f = d.factor()
    edges = torch.tensor([-1.5, -0.5, 0.25, 1.0])
    return Block(
        lambda s, x: x + s.t[torch.bucketize(x, edges.to(x.dtype))],
        (
            lambda s, x: x + s.t[torch.searchsorted(edges.to(x.dtype), x)],
            lambda s, x: x + s.t[sum((x > e).long() for e in edges.tolist())],
            lambda s, x: x + s.t[(x[..., None] > edges.to(x.dtype)).sum(-1)],
        ),
        (
            lambda s, x: x + s.t[torch.bucketize(x, edges.to(x.dtype) * f)],
            lambda s, x: x + s.t.flip(0)[torch.bucketize(x, edges.to(x.dtype))],
            lambda s, x: x + s.t[torch.bucketize(x, edges[:3].to(x.dtype))],
            lambda s, x: x + s.t[torch.bucketize(x, edges.to(x.dtype)).clamp(max=3)],
        ),
        {"t": d.normal(5)},
    )
