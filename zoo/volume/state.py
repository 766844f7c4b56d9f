"""Programs that write to their buffers, so that a second call gives other numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.volume.block import ANY, IMAGE, ROWS, SEQUENCE, WIDE, Block, Draw, Forward, stateful


def steps(*parts: Any) -> Forward:
    """The last part's value, after the others were called for what they write."""

    def forward(s: Any, x: Tensor, *extra: Tensor) -> Any:
        return [part(s, x, *extra) for part in parts][-1]

    return forward


@stateful(*ANY)
def moving_average(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]

    def batch(x: Tensor) -> Tensor:
        return x.flatten(0, -2).mean(0)

    return Block(
        steps(lambda s, x: s.m.mul_(0.75).add_(batch(x), alpha=0.25), lambda s, x: x - s.m),
        (
            steps(lambda s, x: s.m.lerp_(batch(x), 0.25), lambda s, x: x - s.m),
            steps(lambda s, x: s.m.copy_(0.75 * s.m + 0.25 * batch(x)), lambda s, x: -s.m + x),
            steps(lambda s, x: s.m.add_((batch(x) - s.m) / 4), lambda s, x: x - s.m),
            lambda s, x: x - s.m.copy_(0.75 * s.m + batch(x) / 4),
            steps(lambda s, x: s.m.mul_(3).add_(batch(x)).div_(4), lambda s, x: x - s.m),
        ),
        (
            steps(lambda s, x: s.m.mul_(0.75).add_(batch(x), alpha=0.25 * f), lambda s, x: x - s.m),
            steps(lambda s, x: s.m.mul_(0.75 / f).add_(batch(x), alpha=0.25), lambda s, x: x - s.m),
            lambda s, x: x - s.m,
            lambda s, x: x - (0.75 * s.m + 0.25 * batch(x)),
            lambda s, x: (x - s.m, s.m.mul_(0.75).add_(batch(x), alpha=0.25))[0],
            steps(lambda s, x: s.m.mul_(0.25).add_(batch(x), alpha=0.75), lambda s, x: x - s.m),
        ),
        {"m": d.normal(n)},
    )


@stateful(ROWS, IMAGE)
def training_batch_norm(d: Draw) -> Block:
    f, n, v = d.factor(), d.width, d.vector
    axes = (0,) if len(d.shape) == 2 else (0, 2, 3)

    def norm(s: Any, x: Tensor, momentum: float = 0.25, eps: float = 1e-5) -> Tensor:
        return F.batch_norm(x, s.m, s.v, s.w, s.b, True, momentum, eps)

    def by_hand(s: Any, x: Tensor, correction: int = 1, eps: float = 1e-5, keep: float = 0.75) -> Any:
        mean, var = x.mean(axes), x.var(axes, correction=0)
        s.m.mul_(keep).add_(mean, alpha=1 - keep)
        s.v.mul_(keep).add_(x.var(axes, correction=correction), alpha=1 - keep)
        return (x - mean.view(v)) * torch.rsqrt(var + eps).view(v) * s.w.view(v) + s.b.view(v)

    return Block(
        norm,
        (
            by_hand,
            lambda s, x: F.batch_norm(x, s.m, s.v, None, None, True, 0.25, 1e-5) * s.w.view(v) + s.b.view(v),
            lambda s, x: F.batch_norm(-x, s.m.neg_(), s.v, -s.w, s.b, True, 0.25, 1e-5) + 0 * s.m.neg_().sum(),
        ),
        (
            lambda s, x: norm(s, x, 0.25 * f),
            lambda s, x: norm(s, x, eps=1e-2),
            lambda s, x: by_hand(s, x, correction=0),
            lambda s, x: by_hand(s, x, keep=0.7),
            lambda s, x: F.batch_norm(x, None, None, s.w, s.b, True, 0.25, 1e-5),
            lambda s, x: F.batch_norm(x, s.m, s.v, s.w, s.b, False, 0.25, 1e-5),
        ),
        {"m": d.normal(n), "v": d.positive(n), "w": d.positive(n), "b": d.normal(n)},
    )


@stateful(*ANY)
def count_in_floats(d: Draw) -> Block:
    f = d.factor()
    return Block(
        steps(lambda s, x: s.n.add_(1), lambda s, x: x / s.n),
        (
            lambda s, x: (x / (s.n + 1), s.n.add_(1))[0],
            steps(lambda s, x: s.n.copy_(s.n + 1), lambda s, x: x * s.n.reciprocal()),
            steps(lambda s, x: s.n.sub_(-1), lambda s, x: x / s.n),
            steps(lambda s, x: s.n.mul_(2).add_(2).div_(2), lambda s, x: x / s.n),
        ),
        (
            lambda s, x: (x / s.n, s.n.add_(1))[0],
            lambda s, x: x / (s.n + 1),
            steps(lambda s, x: s.n.add_(2), lambda s, x: x / s.n),
            steps(lambda s, x: s.n.add_(f), lambda s, x: x / s.n),
            steps(lambda s, x: s.n.add_(1), lambda s, x: x / (s.n * f)),
        ),
        {"n": d.positive(1)},
    )


@stateful(*ANY)
def count_in_integers(d: Draw) -> Block:
    f = d.factor()
    return Block(
        steps(lambda s, x: s.count.add_(1), lambda s, x: x * s.count + 1),
        (
            lambda s, x: (x * (s.count + 1) + 1, s.count.add_(1))[0],
            steps(lambda s, x: s.count.copy_(s.count + 1), lambda s, x: x * s.count.to(x.dtype) + 1),
            steps(lambda s, x: s.count.add_(2).sub_(1), lambda s, x: 1 + s.count * x),
        ),
        (
            lambda s, x: (x * s.count + 1, s.count.add_(1))[0],
            lambda s, x: x * (s.count + 1) + 1,
            steps(lambda s, x: s.count.add_(2), lambda s, x: x * s.count + 1),
            steps(lambda s, x: s.count.add_(1), lambda s, x: x * s.count * f + 1),
            steps(lambda s, x: s.count.add_(1).clamp_(max=2), lambda s, x: x * s.count + 1),
        ),
        {"count": torch.tensor(1)},
    )


@stateful(*ANY)
def delay(d: Draw) -> Block:
    """The value of the call before."""
    f = d.factor()
    return Block(
        lambda s, x: (x + s.last, s.last.copy_(x))[0],
        (
            lambda s, x: (s.last.clone() + x, s.last.zero_().add_(x))[0],
            lambda s, x: (s.last + x, s.last.mul_(0).sub_(-x))[0],
            lambda s, x: (lambda y: (y, s.last.copy_(y - s.last))[0])(x + s.last),
            lambda s, x: (torch.stack([x, s.last]).sum(0), s.last.copy_(x))[0],
        ),
        (
            steps(lambda s, x: s.last.copy_(x), lambda s, x: x + s.last),
            lambda s, x: x + s.last,
            lambda s, x: (x + s.last * f, s.last.copy_(x))[0],
            lambda s, x: (x + s.last, s.last.copy_(x * f))[0],
            lambda s, x: (x + s.last, s.last.add_(x))[0],
            lambda s, x: (x + s.last, s.last.copy_(x.roll(1, -1)))[0],
        ),
        {"last": d.normal(*d.shape)},
    )


@stateful(SEQUENCE)
def cache(d: Draw) -> Block:
    """A window of keys that each call moves on."""
    f = d.factor()

    def attend(x: Tensor, keys: Tensor, scale: float = 0.25) -> Tensor:
        return x + torch.softmax(x @ keys.mT * scale, -1) @ keys

    def push(s: Any, x: Tensor) -> Tensor:
        return torch.cat([s.keys, x], 1)[:, 8:]

    return Block(
        lambda s, x: (attend(x, torch.cat([s.keys, x], 1)), s.keys.copy_(push(s, x)))[0],
        (
            lambda s, x: (lambda k: (attend(x, k), s.keys.copy_(k[:, 8:]))[0])(torch.cat([s.keys, x], 1)),
            lambda s, x: (
                lambda k: (
                    x + F.scaled_dot_product_attention(x, k, k, scale=0.25),
                    s.keys.copy_(torch.cat([s.keys[:, 8:], x], 1)),
                )[0]
            )(torch.cat([s.keys, x], 1)),
            lambda s, x: (
                lambda k: (attend(x, torch.cat([k[:, 4:], k[:, :4]], 1)), s.keys.copy_(k.narrow(1, 8, 12)))[0]
            )(torch.cat([s.keys, x], 1)),
        ),
        (
            lambda s, x: attend(x, torch.cat([s.keys, x], 1)),
            lambda s, x: (attend(x, s.keys), s.keys.copy_(push(s, x)))[0],
            lambda s, x: (attend(x, torch.cat([s.keys, x], 1)), s.keys.copy_(torch.cat([x, s.keys], 1)[:, :12]))[0],
            lambda s, x: (attend(x, torch.cat([s.keys, x], 1), 0.25 * f), s.keys.copy_(push(s, x)))[0],
            lambda s, x: (attend(x, torch.cat([s.keys, x], 1)), s.keys.copy_(torch.cat([s.keys, x], 1)[:, 7:-1]))[0],
        ),
        {"keys": d.normal(2, 12, 8)},
    )


@stateful(SEQUENCE)
def ring(d: Draw) -> Block:
    """Rows that are written at a position, which moves on."""

    def row(x: Tensor) -> Tensor:
        return x.mean((0, 1)).unsqueeze(0)

    def move(s: Any, x: Tensor, by: int = 1, size: int = 4) -> Any:
        return s.at.add_(by).remainder_(size)

    return Block(
        steps(lambda s, x: s.rows.index_copy_(0, s.at, row(x)), move, lambda s, x: x + s.rows.sum(0)),
        (
            steps(
                lambda s, x: s.rows.copy_(torch.where((torch.arange(4) == s.at)[:, None], row(x), s.rows)),
                move,
                lambda s, x: x + s.rows.sum(0),
            ),
            steps(lambda s, x: s.rows.index_put_((s.at,), row(x)), move, lambda s, x: s.rows.flip(0).sum(0) + x),
        ),
        (
            steps(move, lambda s, x: s.rows.index_copy_(0, s.at, row(x)), lambda s, x: x + s.rows.sum(0)),
            steps(lambda s, x: s.rows.index_copy_(0, s.at, row(x)), lambda s, x: x + s.rows.sum(0)),
            steps(lambda s, x: s.rows.index_add_(0, s.at, row(x)), move, lambda s, x: x + s.rows.sum(0)),
            steps(
                lambda s, x: s.rows.index_copy_(0, s.at, row(x)),
                lambda s, x: move(s, x, 2),
                lambda s, x: x + s.rows.sum(0),
            ),
        ),
        {"rows": d.normal(4, 8), "at": torch.tensor([1])},
    )


@stateful(*ANY)
def running_maximum(d: Draw) -> Block:
    f, n = d.factor(), d.shape[-1]

    def top(x: Tensor) -> Tensor:
        return x.flatten(0, -2).amax(0)

    return Block(
        steps(lambda s, x: s.top.copy_(torch.maximum(s.top, top(x))), lambda s, x: s.top - x),
        (
            steps(lambda s, x: s.top.copy_(torch.where(top(x) > s.top, top(x), s.top)), lambda s, x: -x + s.top),
            steps(lambda s, x: s.top.add_(F.relu(top(x) - s.top)), lambda s, x: s.top - x),
            steps(lambda s, x: s.top.copy_(torch.cat([s.top[None], x.flatten(0, -2)]).amax(0)), lambda s, x: s.top - x),
        ),
        (
            steps(lambda s, x: s.top.copy_(torch.minimum(s.top, top(x))), lambda s, x: s.top - x),
            steps(lambda s, x: s.top.copy_(top(x)), lambda s, x: s.top - x),
            lambda s, x: torch.maximum(s.top, top(x)) - x,
            steps(lambda s, x: s.top.copy_(torch.maximum(s.top, top(x)) * f), lambda s, x: s.top - x),
            lambda s, x: (s.top - x, s.top.copy_(torch.maximum(s.top, top(x))))[0],
        ),
        {"top": d.normal(n)},
    )


@stateful(*WIDE)
def recurrent(d: Draw) -> Block:
    """A state that a tanh of it and the input replaces."""
    f = d.factor()

    def inner(s: Any, x: Tensor, u: Any = None) -> Tensor:
        return F.linear(x, s.w, s.b) + F.linear(s.h, s.u if u is None else u)

    return Block(
        lambda s, x: s.h.copy_(torch.tanh(inner(s, x))) + x,
        (
            lambda s, x: x + s.h.copy_(torch.tanh(F.linear(torch.cat([x, s.h], -1), torch.cat([s.w, s.u], 1), s.b))),
            lambda s, x: (lambda h: (x + h, s.h.copy_(h))[0])(torch.tanh(x @ s.w.t() + s.h @ s.u.t() + s.b)),
            steps(lambda s, x: s.h.copy_(inner(s, x)).tanh_(), lambda s, x: x + s.h),
        ),
        (
            lambda s, x: torch.tanh(inner(s, x)) + x,
            lambda s, x: (lambda h: (s.h.clone() + x, s.h.copy_(h))[0])(torch.tanh(inner(s, x))),
            lambda s, x: s.h.copy_(torch.tanh(inner(s, x, s.u.t()))) + x,
            lambda s, x: s.h.copy_(torch.tanh(inner(s, x * f))) + x,
            lambda s, x: s.h.copy_(torch.sigmoid(inner(s, x))) + x,
        ),
        {
            "w": d.normal(8, 8, scale=0.4),
            "u": d.normal(8, 8, scale=0.4),
            "b": d.normal(8),
            "h": d.normal(*d.shape),
        },
    )


@stateful(*WIDE)
def gated_recurrent(d: Draw) -> Block:
    f = d.factor()

    def gates(s: Any, x: Tensor) -> Any:
        z, c = F.linear(x, s.w).chunk(2, -1)
        return torch.sigmoid(z), torch.tanh(c)

    return Block(
        lambda s, x: (lambda z, c: s.h.copy_(z * s.h + (1 - z) * c).mul(2))(*gates(s, x)),
        (
            lambda s, x: (lambda z, c: 2 * s.h.copy_(torch.lerp(c, s.h, z)))(*gates(s, x)),
            lambda s, x: (lambda z, c: s.h.sub_(c).mul_(z).add_(c).mul(2))(*gates(s, x)),
            lambda s, x: (lambda z, c: s.h.add_((1 - z) * (c - s.h)) * 2)(*gates(s, x)),
        ),
        (
            lambda s, x: (lambda z, c: s.h.copy_((1 - z) * s.h + z * c).mul(2))(*gates(s, x)),
            lambda s, x: (lambda z, c: s.h.copy_(z * s.h + (1 - z) * c).mul(2 * f))(*gates(s, x)),
            lambda s, x: (lambda z, c: s.h.copy_(z * s.h + (f - z) * c).mul(2))(*gates(s, x)),
            lambda s, x: (lambda z, c: (z * s.h + (1 - z) * c).mul(2))(*gates(s, x)),
        ),
        {"w": d.normal(16, 8, scale=0.4), "h": d.normal(*d.shape)},
    )


@stateful(*WIDE)
def scaled_and_halved(d: Draw) -> Block:
    """A scale that may not be folded, because it is written to."""
    f = d.factor()
    return Block(
        lambda s, x: (F.linear(x, s.w) * s.s, s.s.mul_(0.5))[0],
        (
            lambda s, x: (F.linear(x, s.w * s.s[:, None]), s.s.div_(2))[0],
            steps(lambda s, x: s.s.mul_(0.5), lambda s, x: F.linear(x, s.w) * (2 * s.s)),
            lambda s, x: (s.s * (x @ s.w.mT), s.s.sub_(s.s * 0.5))[0],
        ),
        (
            lambda s, x: F.linear(x, s.w) * s.s,
            steps(lambda s, x: s.s.mul_(0.5), lambda s, x: F.linear(x, s.w) * s.s),
            lambda s, x: (F.linear(x, s.w) * s.s, s.s.mul_(0.5 * f))[0],
            lambda s, x: (F.linear(x, s.w * s.s), s.s.mul_(0.5))[0],
        ),
        {"w": d.normal(8, 8, scale=0.4), "s": d.positive(8)},
        lambda s: {"folded": s["w"] * s["s"][:, None]},
        misfolded=(lambda s, x: (F.linear(x, s.folded), s.s.mul_(0.5))[0],),
    )


@stateful(*WIDE)
def descent(d: Draw) -> Block:
    """A step of gradient descent with momentum, on a weight that the call uses."""
    f = d.factor()

    def gradient(s: Any, x: Tensor) -> Any:
        rows = x.flatten(0, -2)
        return (rows @ s.w.t()).t() @ rows / rows.shape[0]

    def step(s: Any, x: Tensor, momentum: float = 0.5, rate: float = 0.125) -> Any:
        return s.w.sub_(s.v.mul_(momentum).add_(gradient(s, x)), alpha=rate)

    return Block(
        lambda s, x: (F.linear(x, s.w), step(s, x))[0],
        (
            lambda s, x: (
                x @ s.w.t(),
                s.v.copy_(
                    torch.addmm(0.5 * s.v, F.linear(x, s.w).flatten(0, -2).t(), x.flatten(0, -2) / x[..., 0].numel())
                ),
                s.w.add_(s.v * -0.125),
            )[0],
            lambda s, x: (lambda y: (y, s.v.lerp_(2 * gradient(s, x), 0.5), s.w.copy_(s.w - s.v / 8))[0])(
                F.linear(x, s.w)
            ),
        ),
        (
            steps(step, lambda s, x: F.linear(x, s.w)),
            lambda s, x: (F.linear(x, s.w), step(s, x, 0.5 * f))[0],
            lambda s, x: (F.linear(x, s.w), step(s, x, rate=0.125 * f))[0],
            lambda s, x: (F.linear(x, s.w), s.w.sub_(gradient(s, x), alpha=0.125))[0],
            lambda s, x: (F.linear(x, s.w), s.v.mul_(0.5).add_(gradient(s, x)))[0],
        ),
        {"w": d.normal(8, 8, scale=0.4), "v": d.normal(8, 8, scale=0.1)},
    )


@stateful(*WIDE)
def power_iteration(d: Draw) -> Block:
    """Spectral normalization: the buffer turns towards the largest singular vector."""
    f = d.factor()

    def turn(s: Any, x: Tensor, w: Any = None) -> Any:
        w = s.w if w is None else w
        return s.u.copy_(F.normalize(w @ (w.t() @ s.u), dim=0))

    return Block(
        steps(turn, lambda s, x: F.linear(x, s.w) / torch.linalg.vector_norm(s.w.t() @ s.u)),
        (
            steps(
                # Without the limit, another function where the norm is smaller than it.
                lambda s, x: s.u.copy_((lambda u: u / u.norm().clamp_min(1e-12))(s.w @ s.w.t() @ s.u)),
                lambda s, x: F.linear(x, s.w / (s.u @ s.w).square().sum().sqrt()),
            ),
            steps(lambda s, x: turn(s, x, -s.w), lambda s, x: F.linear(x, s.w) / (s.u @ s.w).norm()),
        ),
        (
            lambda s, x: F.linear(x, s.w) / torch.linalg.vector_norm(s.w.t() @ s.u),
            steps(lambda s, x: turn(s, x, s.w.t()), lambda s, x: F.linear(x, s.w) / (s.u @ s.w).norm()),
            steps(turn, lambda s, x: F.linear(x, s.w) / (s.u @ s.w).norm() * f),
            steps(turn, turn, lambda s, x: F.linear(x, s.w) / (s.u @ s.w).norm()),
        ),
        {"w": d.normal(8, 8), "u": d.normal(8)},
    )


@stateful(*ANY)
def bias_correction(d: Draw) -> Block:
    """A moving average of squares, divided by what its start at zero costs."""
    f, n = d.factor(), d.shape[-1]

    def square(x: Tensor) -> Tensor:
        return x.flatten(0, -2).square().mean(0)

    def shown(s: Any, x: Tensor, eps: float = 1e-3) -> Tensor:
        return x / (torch.sqrt(s.v / (1 - s.p)) + eps)

    return Block(
        steps(lambda s, x: s.v.mul_(0.5).add_(square(x), alpha=0.5), lambda s, x: s.p.mul_(0.5), shown),
        (
            steps(
                lambda s, x: s.p.div_(2),
                lambda s, x: s.v.copy_((s.v + square(x)) / 2),
                lambda s, x: x * (torch.sqrt(s.v * torch.reciprocal(1 - s.p)) + 1e-3).reciprocal(),
            ),
            steps(lambda s, x: s.v.lerp_(square(x), 0.5), lambda s, x: s.p.sub_(s.p * 0.5), shown),
        ),
        (
            steps(lambda s, x: s.v.mul_(0.5).add_(square(x), alpha=0.5), shown),
            steps(
                lambda s, x: s.v.mul_(0.5).add_(square(x), alpha=0.5),
                lambda s, x: s.p.mul_(0.5),
                lambda s, x: shown(s, x, 1e-2),
            ),
            steps(lambda s, x: s.v.mul_(0.5).add_(square(x), alpha=0.5 * f), lambda s, x: s.p.mul_(0.5), shown),
            lambda s, x: (
                shown(s, x),
                s.v.mul_(0.5).add_(square(x), alpha=0.5),
                s.p.mul_(0.5),
            )[0],
        ),
        {"v": d.positive(n), "p": torch.tensor([0.5], dtype=torch.float64)},
    )
