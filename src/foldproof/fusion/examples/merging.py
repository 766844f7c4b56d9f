"""Models in which linear operators must, or must not, be merged."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.fusion.examples.models import Declines, Fires, chain, functional

_norm1, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_conv = partial(nn.Conv2d, 6, 6)
_image = (2, 6, 7, 8)

_NOT_MERGED = "a shift does not pass relu"
"""The reason why a normalisation behind the rectifier stays; the operators before it stay, too."""

_three = partial(_conv, 3, padding=1)


def _sum_in_place(terms: list[Tensor]) -> Tensor | int:
    """Return the sum as modules of several branches compute it: 0, and then += each."""
    total: Tensor | int = 0
    for term in terms:
        total += term
    return total


def _adapt_by_direction(m: Any, x: Tensor) -> Any:
    """Return the sum of a layer and its adapter as peft computes it: DoRA, with the scale of each row."""
    base = m.a(x)
    norm = torch.linalg.norm(m.a.weight + 2 * m.d(m.c(torch.eye(6))).T, dim=1)
    scale = (m.scale / norm).view(1, -1)
    return m.n(base + ((scale - 1) * (base - m.a.bias) + scale * m.d(m.c(x)) * 2))


_dora: dict[str, Any] = {
    "a": partial(nn.Linear, 6, 6),
    "c": partial(nn.Linear, 6, 2, bias=False),
    "d": partial(nn.Linear, 2, 6, bias=False),
    "scale": lambda: torch.rand(6) + 0.5,
}

parallel_fires = (
    Fires(
        "RepVGG: 3×3, 1×1 and identity, each with its normalisation",
        functional(
            ((2, 6, 7, 8),),
            lambda m, x: (m.p(m.a(x)) + m.q(m.b(x)) + m.r(x)).relu(),
            a=partial(nn.Conv2d, 6, 6, 3, padding=1, bias=False),
            b=partial(nn.Conv2d, 6, 6, 1, bias=False),
            p=_norm2,
            q=_norm2,
            r=_norm2,
        ),
    ),
    Fires(
        "kernels that stand and lie",
        functional(
            ((2, 6, 7, 8),),
            lambda m, x: m.p(m.a(x) + m.b(x) + m.c(x)),
            a=partial(nn.Conv2d, 6, 6, 3, padding=1, stride=2),
            b=partial(nn.Conv2d, 6, 6, (3, 1), padding=(1, 0), stride=2),
            c=partial(nn.Conv2d, 6, 6, (1, 3), padding=(0, 1), stride=2),
            p=_norm2,
        ),
    ),
    Fires(
        "dilated, grouped, 1-D, and the value itself",
        functional(
            ((2, 6, 9),),
            lambda m, x: m.p(m.a(x) + x),
            a=partial(nn.Conv1d, 6, 6, 3, padding=2, dilation=2, groups=3),
            p=_norm1,
        ),
    ),
    Fires(
        "an average beside them",
        functional((_image,), lambda m, x: m.n(m.a(x) + nn.functional.avg_pool2d(x, 3, 1, 1)), a=_three, n=_norm2),
    ),
    Fires(
        "an average of a 1×1 convolution (DBB)",
        functional(
            (_image,),
            lambda m, x: m.n(m.a(x) + nn.functional.avg_pool2d(m.b(x), 3, 1)),
            a=partial(_conv, 3),
            b=partial(_conv, 1),
            n=_norm2,
        ),
    ),
    Fires(
        "1×1 and 3×3 in a row, beside 3×3 (DBB)",
        functional(
            (_image,),
            lambda m, x: m.n(m.a(x) + m.c(m.b(x))),
            a=_three,
            b=partial(_conv, 1, bias=False),
            c=_three,
            n=_norm2,
        ),
    ),
    Fires(
        "a difference with a normalisation (FastViT)",
        functional(
            (_image,),
            lambda m, x: x + (m.a(x) - m.n(x)) * m.k.view(6, 1, 1),
            a=partial(_conv, 7, padding=3, groups=6),
            n=_norm2,
            k=lambda: torch.randn(6),
        ),
    ),
    Fires(
        "two normalisations of the value itself",
        functional((_image,), lambda m, x: m.n(x) + m.o(x) + m.a(x), a=_three, n=_norm2, o=_norm2),
    ),
    Fires(
        "sums in place that begin with 0, and dropout",
        functional(
            (_image,),
            lambda m, x: _sum_in_place([m.n(x), nn.functional.dropout(m.a(x), 0.1, False), m.b(x)]),
            a=_three,
            b=partial(_conv, 1),
            n=_norm2,
        ),
    ),
    Fires(
        "a stack that is summed",
        functional(
            (_image,),
            lambda m, x: torch.stack([m.n(m.a(x)), m.b(x), x]).sum(0),
            a=_three,
            b=partial(_conv, 1),
            n=_norm2,
        ),
    ),
    Fires(
        "kernels of different sizes, and groups",
        functional(
            (_image,),
            lambda m, x: m.n(m.a(x) + m.b(x)),
            a=partial(_conv, 5, padding=2, groups=2),
            b=partial(_conv, 3, padding=1, groups=6),
            n=_norm2,
        ),
    ),
    Fires(
        "with another value between the terms",
        functional(
            (_image, _image), lambda m, x, y: m.n(m.a(x)) + y + m.b(x) + x, a=_three, b=partial(_conv, 1), n=_norm2
        ),
    ),
    Fires(
        "in two halves of a sum",
        functional(
            (_image, _image),
            lambda m, x, y: (m.n(m.a(x)) + y) + (m.b(x) + y.relu()),
            a=_three,
            b=partial(_conv, 1),
            n=_norm2,
        ),
    ),
    Fires("what is subtracted takes the rest", functional((_image,), lambda m, x: m.n(x - m.a(x)), a=_three, n=_norm2)),
    Fires(
        "LoRA",
        functional(
            ((4, 6),),
            lambda m, x: m.n(m.a(x) + m.d(m.c(nn.functional.dropout(x, 0.1, False))) * 2),
            a=partial(nn.Linear, 6, 6),
            c=partial(nn.Linear, 6, 2, bias=False),
            d=partial(nn.Linear, 2, 6, bias=False),
            n=_norm1,
        ),
    ),
    Fires(
        "LoRA of a value that is reshaped",
        functional(
            ((2, 5, 6),),
            lambda m, x: m.n(
                (m.a(x.view(10, 6)).view(2, 5, 6) + m.d(m.c(x.view(10, 6))).view(2, 5, 6)).transpose(1, 2)
            ),
            a=partial(nn.Linear, 6, 6),
            c=partial(nn.Linear, 6, 2, bias=False),
            d=partial(nn.Linear, 2, 6, bias=False),
            n=_norm1,
        ),
    ),
    Fires(
        "two transpositions that are alike",
        functional(
            ((6, 4),),
            lambda m, x: m.n(m.a(x.t()) + m.b(x.t())),
            a=partial(nn.Linear, 6, 6),
            b=partial(nn.Linear, 6, 6),
            n=_norm1,
        ),
    ),
    Fires("DoRA", functional(((4, 6),), _adapt_by_direction, **_dora, n=_norm1)),
)
parallel_declines = (
    Declines(
        "other strides",
        functional(
            ((2, 6, 8, 8),),
            lambda m, x: m.n((m.a(x) + m.b(x)).relu()),
            a=partial(nn.Conv2d, 6, 6, 4, padding=1, stride=2),
            b=partial(nn.Conv2d, 6, 6, 5, padding=0, stride=1),
            n=_norm2,
        ),
        _NOT_MERGED,
    ),
    Declines(
        "taps that do not meet",
        functional(
            ((2, 6, 8, 8),),
            lambda m, x: m.n((m.a(x) + m.b(x)).relu()),
            a=partial(nn.Conv2d, 6, 6, 3, padding=2, dilation=2),
            b=partial(nn.Conv2d, 6, 6, 3, padding=1),
            n=_norm2,
        ),
        _NOT_MERGED,
    ),
    Declines(
        "an average that divides by other numbers at the border",
        functional(
            (_image,),
            lambda m, x: m.n((m.a(x) + nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)).relu()),
            a=_three,
            n=_norm2,
        ),
        _NOT_MERGED,
    ),
    Declines(
        "one operator would need more multiplications: 1×1 and depthwise",
        functional(
            (_image,),
            lambda m, x: m.n((m.a(x) + m.b(x)).relu()),
            a=partial(_conv, 3, padding=1, groups=6),
            b=partial(_conv, 1),
            n=_norm2,
        ),
        _NOT_MERGED,
    ),
    Declines(
        "a term that is computed from another, which is read elsewhere",
        functional(
            ((4, 6),),
            lambda m, x: m.n(((y := m.a(x)) + y * m.k).relu() * y),
            a=partial(nn.Linear, 6, 6),
            k=lambda: torch.randn(6),
            n=_norm1,
        ),
        "a shift does not pass mul",
    ),
    Declines(
        "a term that is read elsewhere",
        functional(
            (_image,), lambda m, x: m.n(((y := m.a(x)) + m.b(x)).relu() * y), a=_three, b=partial(_conv, 1), n=_norm2
        ),
        "a shift does not pass mul",
    ),
)

consecutive_fires = (
    Fires("two linears", chain((4, 6), partial(nn.Linear, 6, 8), partial(nn.Linear, 8, 6), _norm1)),
    Fires("1×1 before 3×3", chain(_image, partial(_conv, 1, bias=False), partial(_conv, 3, padding=1), _norm2)),
    Fires("1×1 with a bias before 3×3 without padding", chain(_image, partial(_conv, 1), partial(_conv, 3), _norm2)),
    Fires("3×3 before 1×1", chain(_image, partial(_conv, 3, padding=1, stride=2), partial(_conv, 1), _norm2)),
    Fires(
        "grouped 1×1 convolutions",
        chain((2, 6, 9), partial(nn.Conv1d, 6, 6, 1, groups=3), partial(nn.Conv1d, 6, 6, 3, groups=3), _norm1),
    ),
)
consecutive_declines = (
    Declines(
        "few channels between them",
        chain((2, 8, 7, 7), partial(nn.Conv2d, 8, 2, 1), partial(nn.Conv2d, 2, 6, 1), nn.ReLU, _norm2),
        _NOT_MERGED,
    ),
    Declines(
        "a bias behind which zeros are padded",
        chain(_image, partial(_conv, 1), partial(_conv, 3, padding=1), nn.ReLU, _norm2),
        _NOT_MERGED,
    ),
    Declines(
        "two large kernels",
        chain(_image, partial(_conv, 3), partial(_conv, 3), nn.ReLU, _norm2),
        _NOT_MERGED,
    ),
)
