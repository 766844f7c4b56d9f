"""Models in which an affine must, or must not, be moved."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from foldproof.fusion.examples.models import Declines, Fires, chain, functional, positive

_conv = partial(nn.Conv2d, 3, 6, 3)
_linear = partial(nn.Linear, 3, 6)
_norm1, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_image = (2, 3, 7, 8)
_vector = partial(torch.randn, 6)

selection_fires = (
    Fires(
        "tokens flattened (LeViT)",
        functional(((2, 5, 3),), lambda m, x: m.n(m.a(x).flatten(0, 1)).view(2, 5, 6), a=_linear, n=_norm1),
    ),
    Fires("tokens transposed", functional(((2, 5, 3),), lambda m, x: m.n(m.a(x).transpose(1, 2)), a=_linear, n=_norm1)),
    Fires(
        "channels last and back",
        functional((_image,), lambda m, x: m.n(m.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), a=_linear, n=_norm2),
    ),
    Fires(
        "a normalisation of all elements of an image",
        functional(
            (_image,),
            lambda m, x: m.b(m.n(m.a(x).flatten(1))),
            a=_conv,
            n=partial(nn.BatchNorm1d, 180),
            b=partial(nn.Linear, 180, 3),
        ),
    ),
    Fires(
        "towards a reader",
        functional(((2, 6, 5),), lambda m, x: m.a(m.n(x).transpose(1, 2)), a=partial(nn.Linear, 6, 3), n=_norm1),
    ),
    Fires(
        "channels in groups",
        functional(
            ((2, 3, 5),),
            lambda m, x: m.n(m.a(x).view(2, 3, 2, 5).transpose(1, 2).reshape(2, 6, 5)),
            a=partial(nn.Conv1d, 3, 6, 1),
            n=_norm1,
        ),
    ),
    Fires(
        "pixel shuffle",
        functional(
            ((2, 3, 4, 4),), lambda m, x: m.n(torch.pixel_shuffle(m.a(x), 2)), a=partial(nn.Conv2d, 3, 24, 1), n=_norm2
        ),
    ),
    Fires(
        "two joined",
        functional(
            (_image,),
            lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)),
            a=partial(nn.Conv2d, 3, 2, 3),
            b=partial(nn.Conv2d, 3, 4, 3),
            n=_norm2,
        ),
    ),
    Fires(
        "a constant joined on",
        functional(
            ((2, 5, 3),),
            lambda m, x: m.n(torch.cat([m.k.expand(2, -1, -1), m.a(x)], 1).transpose(1, 2)),
            a=_linear,
            k=lambda: torch.randn(1, 1, 6),
            n=_norm1,
        ),
    ),
    Fires(
        "a slice",
        functional((_image,), lambda m, x: m.n(m.a(x)[:, 1:7]).relu(), a=partial(nn.Conv2d, 3, 9, 3), n=_norm2),
    ),
    Fires(
        "one half",
        functional((_image,), lambda m, x: m.n(m.a(x).chunk(2, 1)[1]).relu(), a=partial(nn.Conv2d, 3, 12, 3), n=_norm2),
    ),
    Fires(
        "joined behind it, with something else",
        functional(
            ((2, 6, 5), (2, 2, 5)),
            lambda m, x, y: m.a(torch.cat([m.n(x), y], 1)),
            a=partial(nn.Conv1d, 8, 3, 3),
            n=_norm1,
        ),
    ),
    Fires(
        "padded by reflection",
        functional(
            (_image,),
            lambda m, x: m.a(nn.functional.pad(m.n(x), (1, 1, 2, 2), mode="reflect")),
            a=_conv,
            n=partial(nn.BatchNorm2d, 3),
        ),
    ),
    Fires(
        "padded by zeros, scaled only",
        functional(
            (_image,), lambda m, x: m.a(nn.functional.pad(x * m.k, (1, 1))), a=_conv, k=lambda: torch.randn(3, 1, 1)
        ),
    ),
    Fires(
        "enlarged",
        functional((_image,), lambda m, x: m.n(nn.functional.interpolate(m.a(x), scale_factor=2)), a=_conv, n=_norm2),
    ),
    Fires("dropout in eval mode", chain((4, 3), _linear, nn.Dropout, _norm1)),
    Fires(
        "a reader of the shape",
        functional(((2, 5, 3),), lambda m, x: m.n((y := m.a(x)).flatten(0, 1)).reshape_as(y), a=_linear, n=_norm1),
    ),
    Fires(
        "rolled, flipped and repeated",
        functional(
            ((2, 5, 3),),
            lambda m, x: m.n(m.a(x).roll(1, 1).flip(1).repeat(1, 2, 1).transpose(1, 2)),
            a=_linear,
            n=_norm1,
        ),
    ),
    Fires(
        "each half by itself",
        functional(
            (_image,),
            lambda m, x: (lambda a, b: (m.n(a), m.o(b)))(*m.a(x).chunk(2, 1)),
            a=partial(nn.Conv2d, 3, 12, 3),
            n=_norm2,
            o=_norm2,
        ),
    ),
    Fires(
        "a half beside its gate",
        functional(
            (_image,),
            lambda m, x: (lambda a, b: m.n(a) * b.sigmoid())(*m.a(x).split(6, 1)),
            a=partial(nn.Conv2d, 3, 12, 3),
            n=_norm2,
        ),
    ),
    Fires(
        "queries out of a packed projection",
        functional(
            ((4, 3),),
            lambda m, x: (lambda q, k: m.n(q) @ k.mT)(*m.a(x).view(4, 2, 6, 5).unbind(1)),
            a=partial(nn.Linear, 3, 60),
            n=_norm1,
        ),
    ),
    Fires(
        "slices",
        functional(
            (_image,),
            lambda m, x: (y := m.a(x), torch.cat([m.n(y[:, :6]), y[:, 6:].relu()], 1))[1],
            a=partial(nn.Conv2d, 3, 9, 3),
            n=_norm2,
        ),
    ),
)
selection_declines = (
    Declines(
        "shifted, padded by zeros",
        functional((_image,), lambda m, x: m.n(nn.functional.pad(m.a(x), (1, 1))), a=_conv, n=_norm2),
        "pads with zeros",
    ),
    Declines(
        "padded by ones",
        functional(
            (_image,),
            lambda m, x: nn.functional.pad(m.a(x), (1, 1), value=1.0) * m.k,
            a=_conv,
            k=lambda: torch.randn(6, 1, 1),
        ),
        "pads with 1",
    ),
    Declines(
        "half of it is read elsewhere",
        functional(
            (_image,),
            lambda m, x: (y := m.a(x), m.n(y[:, :6])),
            a=partial(nn.Conv2d, 3, 9, 3),
            n=_norm2,
        ),
        "is also read by",
    ),
    Declines(
        "slices that overlap",
        functional(
            (_image,),
            lambda m, x: (y := m.a(x), torch.cat([m.n(y[:, :6]), y[:, 3:].relu()], 1))[1],
            a=partial(nn.Conv2d, 3, 9, 3),
            n=_norm2,
        ),
        "is also read by",
    ),
    Declines(
        "one element on several channels",
        functional(
            ((2, 6, 1),),
            lambda m, x: m.n(m.a(x).expand(2, 6, 6).transpose(1, 2)),
            a=partial(nn.Conv1d, 6, 6, 1),
            n=_norm1,
        ),
        "for several channels",
    ),
    Declines(
        "dropout in training mode",
        functional(((4, 3),), lambda m, x: m.n(nn.functional.dropout(m.a(x), 0.5, True)), a=_linear, n=_norm1),
        "drops elements at random",
    ),
)

averaging_fires = (
    Fires("average pooling", chain(_image, _conv, partial(nn.AvgPool2d, 2), _norm2)),
    Fires(
        "padding that is not counted",
        chain(_image, _conv, partial(nn.AvgPool2d, 3, padding=1, count_include_pad=False), _norm2),
    ),
    Fires("adaptive pooling", chain(_image, _conv, partial(nn.AdaptiveAvgPool2d, 1), nn.Flatten, _norm1)),
    Fires("the mean over places", functional((_image,), lambda m, x: m.n(m.a(x).mean((2, 3))), a=_conv, n=_norm1)),
    Fires(
        "towards a reader",
        functional(((2, 6, 7, 8),), lambda m, x: m.a(m.n(x).mean((2, 3))), a=partial(nn.Linear, 6, 3), n=_norm2),
    ),
    Fires(
        "linear interpolation",
        functional(
            (_image,),
            lambda m, x: m.n(nn.functional.interpolate(m.a(x), scale_factor=2, mode="bilinear")),
            a=_conv,
            n=_norm2,
        ),
    ),
)
averaging_declines = (
    Declines(
        "padding that is counted",
        chain(_image, _conv, partial(nn.AvgPool2d, 3, padding=1), _norm2),
        "do not add up to 1",
    ),
    Declines(
        "the mean over channels",
        functional((_image,), lambda m, x: m.n(m.a(x)).mean(1), a=lambda: nn.ReLU(), n=partial(nn.BatchNorm2d, 3)),
        "combines elements of several channels",
    ),
    Declines(
        "a sum", functional((_image,), lambda m, x: m.n(m.a(x).sum((2, 3))), a=_conv, n=_norm1), "do not add up to 1"
    ),
)

maximum_fires = (
    Fires("positive scales", positive(chain(_image, _conv, partial(nn.MaxPool2d, 2), _norm2))),
    Fires(
        "towards a reader (torchcrepe)",
        positive(chain((2, 6, 8, 8), nn.ReLU, _norm2, partial(nn.MaxPool2d, 2), nn.Flatten, partial(nn.Linear, 96, 3))),
    ),
    Fires(
        "the largest of all places",
        positive(functional((_image,), lambda m, x: m.n(m.a(x).amax((2, 3))), a=_conv, n=_norm1)),
    ),
)
maximum_declines = (
    Declines("negative scales", chain(_image, _conv, partial(nn.MaxPool2d, 2), _norm2), "scales are negative"),
)

rectifier_fires = (
    Fires("a positive number", functional((_image,), lambda m, x: m.a(x).relu() * 3, a=_conv)),
    Fires(
        "positive scales towards a reader",
        functional((_image,), lambda m, x: m.a((x * m.k).relu()), a=_conv, k=lambda: torch.rand(3, 1, 1) + 0.5),
    ),
    Fires(
        "leaky",
        functional(
            (_image,),
            lambda m, x: nn.functional.leaky_relu(m.a(x), 0.2) * m.k,
            a=_conv,
            k=lambda: torch.rand(6, 1, 1) + 0.5,
        ),
    ),
)
rectifier_declines = (
    Declines("a shift", chain(_image, _conv, nn.ReLU, _norm2), "a shift does not pass relu"),
    Declines(
        "negative scales",
        functional((_image,), lambda m, x: m.a(x).relu() * m.k, a=_conv, k=lambda: torch.randn(6, 1, 1)),
        "scales are negative",
    ),
)

limits_fires = (
    Fires("a sixth of relu6 (hardsigmoid)", functional((_image,), lambda m, x: F.relu6(m.a(x) + 3) / 6, a=_conv)),
    Fires("hardtanh", functional((_image,), lambda m, x: F.hardtanh(m.a(x), -0.25, 0.5) * 4, a=_conv)),
    Fires("a clamp of a linear", functional(((4, 3),), lambda m, x: m.a(x).clamp(-1, 0.5) * 2 + 1, a=_linear)),
    Fires("a negative number", functional((_image,), lambda m, x: m.a(x).clamp(-1, 0.5) * -2, a=_conv)),
    Fires("a negative number, and one limit", functional((_image,), lambda m, x: m.a(x).relu() * -2, a=_conv)),
    Fires("a limit above", functional((_image,), lambda m, x: 1 - m.a(x).clamp(max=0.5), a=_conv)),
    Fires("a shift", functional((_image,), lambda m, x: m.a(x).relu() - 0.5, a=_conv)),
)
limits_declines = (
    Declines(
        "scales of channels",
        functional((_image,), lambda m, x: F.relu6(m.a(x)) * m.k, a=_conv, k=lambda: torch.rand(6, 1, 1) + 0.5),
        "reads the output of relu6",
    ),
    Declines("a normalisation", positive(chain(_image, _conv, nn.ReLU6, _norm2)), "reads the output of hardtanh"),
    Declines(
        "a parameter",
        functional((_image,), lambda m, x: F.relu6(m.a(x)) * m.k, a=_conv, k=lambda: torch.rand(1) + 0.5),
        "reads the output of relu6",
    ),
)

negation_fires = (
    Fires(
        "a rotation of features, with a table of positions",
        functional(
            ((2, 5, 6),),
            lambda m, x: (y := x.sin() * m.k) * m.c + torch.cat([-y[..., 3:], y[..., :3]], -1) * m.s,
            k=_vector,
            c=lambda: torch.randn(5, 6),
            s=lambda: torch.randn(5, 6),
        ),
    ),
    Fires(
        "a part that is negated, after a normalisation",
        functional(((4, 3),), lambda m, x: torch.cat([-(y := m.n(m.a(x)))[:, :2], y[:, 2:]], 1), a=_linear, n=_norm1),
    ),
)
negation_declines = (
    Declines(
        "a table that would be larger",
        functional(
            ((2, 5, 6),),
            lambda m, x: (y := x.sin() * m.k) * m.c + torch.cat([-y[..., 3:], y[..., :3]], -1) * m.c,
            k=_vector,
            c=lambda: torch.randn(5, 1),
        ),
        "scaled differently",
    ),
)

sum_fires = (
    Fires(
        "a residual of two convolutions",
        functional((_image, _image), lambda m, x, y: m.n(m.a(x) + m.b(y)), a=_conv, b=_conv, n=_norm2),
    ),
    Fires(
        "a difference",
        functional(
            (_image, _image), lambda m, x, y: m.n(torch.sub(m.a(x), m.b(y), alpha=2)), a=_conv, b=_conv, n=_norm2
        ),
    ),
    Fires(
        "a constant that is added",
        functional(
            ((2, 5, 3),),
            lambda m, x: m.n((m.a(x) + m.k).transpose(1, 2)),
            a=_linear,
            k=lambda: torch.randn(5, 6),
            n=_norm1,
        ),
    ),
    Fires(
        "a shift on one side only",
        functional(((2, 6), (2, 6)), lambda m, x, y: m.a(x + m.k + y.relu()), a=partial(nn.Linear, 6, 3), k=_vector),
    ),
    Fires(
        "the second takes the shift",
        functional(
            (_image, (2, 3, 7, 8)),
            lambda m, x, y: m.n(nn.functional.pad(m.a(x), (1, 1)) + m.b(y)),
            a=_conv,
            b=partial(nn.Conv2d, 3, 6, (3, 1)),
            n=_norm2,
        ),
    ),
)
sum_declines = (
    Declines(
        "one side is nothing linear",
        functional(((2, 3), (2, 6)), lambda m, x, y: m.n(m.a(x) + y.tanh()), a=_linear, n=_norm1),
        "reads the output of tanh",
    ),
    Declines(
        "twice the same",
        functional(((2, 3),), lambda m, x: m.n((y := m.a(x)) + y), a=_linear, n=_norm1),
        "adds linear to itself",
    ),
    Declines(
        "only one side is scaled",
        functional(((2, 6), (2, 6)), lambda m, x, y: m.a(m.n(x) + y.relu()), a=partial(nn.Linear, 6, 3), n=_norm1),
        "only one of the two operands",
    ),
)

product_fires = (
    Fires(
        "a gate",
        functional(
            (_image, _image),
            lambda m, x, y: m.a(x) * m.b(y).sigmoid() * m.k,
            a=_conv,
            b=_conv,
            k=lambda: torch.randn(6, 1, 1),
        ),
    ),
    Fires(
        "attention scores times a number",
        functional(((2, 5, 3),), lambda m, x: torch.bmm(m.a(x), m.b(x).transpose(1, 2)) * 0.3, a=_linear, b=_linear),
    ),
)
product_declines = (
    Declines(
        "a shift",
        functional(((2, 3), (2, 6)), lambda m, x, y: m.n(m.a(x) * y.sigmoid()), a=_linear, n=_norm1),
        "a shift does not pass mul",
    ),
    Declines(
        "scales of attention scores",
        functional(
            ((2, 6, 3),), lambda m, x: torch.bmm(m.a(x), m.b(x).transpose(1, 2)) * m.k, a=_linear, b=_linear, k=_vector
        ),
        "only a scale that is one number",
    ),
)
