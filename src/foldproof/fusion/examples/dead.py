"""Models with channels that are one number for all inputs, which must, or must not, be cut out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldproof.fusion.examples.models import BATCH_NORMS, Declines, Example, Fires, functional

_three = partial(nn.Conv2d, 6, 6, 3, padding=1)
_valid = partial(nn.Conv2d, 6, 6, 3)
_one = partial(nn.Conv2d, 6, 6, 1)
_twice = partial(nn.Conv2d, 6, 12, 3, groups=6)
_norm = partial(nn.BatchNorm2d, 6)
_six = partial(nn.Linear, 6, 6)
_image = (2, 6, 7, 8)


def _dead(
    function: Callable[..., Any],
    shape: tuple[int, ...] = _image,
    above: tuple[int, ...] = (1,),
    below: tuple[int, ...] = (4,),
    **parts: Any,
) -> Callable[[], Example]:
    """Return a function that makes a model whose part ``a``, or the normalisations, give a number in some channels.

    The numbers are ``above`` 0 in some, and ``below`` in others.
    """
    make = functional((shape,), function, **parts)

    def with_zeros() -> Example:
        model, inputs = make()
        norms: list[Any] = [part for part in model.modules() if isinstance(part, BATCH_NORMS)]
        with torch.no_grad():
            for part in norms or [model.a]:
                part.weight[[*above, *below]] = 0
                for sign, channels in ((1, above), (-1, below)):
                    if part.bias is not None:
                        part.bias[list(channels)] = sign * (part.bias[list(channels)].abs() + 1)
        return model, inputs

    return with_zeros


def _flat(m: Any, x: Tensor) -> Any:
    return m.b(F.max_pool2d(m.a(x).relu(), 2).flatten(1))


def _joined(m: Any, x: Tensor) -> Any:
    return m.b(torch.cat([x, m.a(x).relu(), x], 1))


_inverted = partial(_dead, lambda m, x: m.c(F.relu6(m.b(F.relu6(m.a(x))))), above=(), a=_one, c=_one)

dead_fires = (
    Fires(
        "a normalisation with a scale of 0 and a negative shift",
        _dead(lambda m, x: m.b(m.n(m.a(x)).relu()), above=(), a=_three, n=_norm, b=_three),
    ),
    Fires("numbers other than 0", _dead(lambda m, x: m.b(m.a(x).relu()), a=_three, b=_valid)),
    Fires("without biases", _dead(lambda m, x: m.b(m.a(x).relu()), a=partial(_three, bias=False), b=_three)),
    Fires("linears", _dead(lambda m, x: m.b(F.gelu(m.a(x))), (2, 5, 6), a=_six, b=_six)),
    Fires("a gate of the same channels", _dead(lambda m, x: m.b((y := m.a(x)) * y.sigmoid()), (2, 6), a=_six, b=_six)),
    Fires("limits on both sides", _dead(lambda m, x: m.b(m.a(x).clamp(-0.5, 2)), a=_three, b=_one)),
    Fires("pooled and flattened", _dead(_flat, a=_three, b=partial(nn.Linear, 72, 5))),
    Fires("averaged", _dead(lambda m, x: m.b(m.a(x).relu().mean((2, 3))), a=_three, b=_six)),
    Fires("a depthwise convolution between", _inverted(b=partial(_three, groups=6))),
    Fires(
        "several channels of each one",
        _inverted(b=partial(nn.Conv2d, 6, 12, 3, padding=1, groups=6), c=partial(nn.Conv2d, 12, 6, 1)),
    ),
    Fires("joined with others", _dead(_joined, a=_three, b=partial(nn.Conv2d, 18, 6, 1))),
    Fires("two readers", _dead(lambda m, x: m.b(y := m.a(x).relu()) + m.c(y).tanh(), a=_three, b=_one, c=_one)),
    Fires("groups", _dead(lambda m, x: m.b(m.a(x).relu()), a=partial(_one, groups=2), b=partial(_one, groups=2))),
    Fires("all of them", _dead(lambda m, x: m.b(m.a(x).relu()), above=(0, 1, 2), below=(3, 4, 5), a=_three, b=_one)),
)
dead_declines = (
    Declines(
        "zeros are padded beside another number",
        _dead(lambda m, x: m.b(m.a(x).relu()), below=(), a=_three, b=_three),
        "pads them with zeros, which they are not",
    ),
    Declines(
        "a residual of other values",
        _dead(lambda m, x: m.b((m.a(x) + x.tanh()).relu()), a=_three, b=_one),
        "reads tanh beside them, which is not cut alike",
    ),
    Declines(
        "an output of the program", _dead(lambda m, x: m.a(x).relu(), a=_three), "the program's output reads them"
    ),
    Declines(
        "a reader that can't drop them",
        _dead(lambda m, x: m.b(y := m.a(x).relu()) * y.softmax(1), a=_three, b=_one),
        "softmax (softmax) reads them",
    ),
    Declines(
        "one group has none",
        _dead(lambda m, x: m.b(m.a(x).relu()), below=(), a=partial(_one, groups=2), b=_one),
        "not every one of its 2 groups has some",
    ),
    Declines(
        "groups of a reader",
        _dead(lambda m, x: m.b(m.a(x).relu()), below=(), a=_one, b=partial(_one, groups=2)),
        "not every one of the 2 groups of conv2d_1 reads as many of them",
    ),
    Declines(
        "an average that counts its padding",
        _dead(lambda m, x: m.b(F.avg_pool2d(m.a(x).relu(), 3, 1, 1)), below=(), a=_three, b=_one),
        "do not add up to 1",
    ),
    Declines(
        "a product with other data",
        _dead(lambda m, x: m.a(x).relu() @ x.transpose(-1, -2), (6, 6), a=_six),
        "the weight of matmul is computed in the graph",
    ),
)
