"""Small models on which each rule must fire, or must decline: the tests loop over them and the docs can show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Fires:
    """A model in which every batch normalisation is folded. ``make`` returns it with example inputs."""

    name: str
    make: Callable[[], Made]


@dataclass(frozen=True)
class Declines:
    """A model in which the rule leaves a normalisation standing, for a reason that contains ``reason``."""

    name: str
    make: Callable[[], Made]
    reason: str


class Functional(nn.Module):
    """A model of a function of itself and its inputs, for the small cases that no stock module makes."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part, requires_grad=False) if isinstance(part, Tensor) else part)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def lively(model: nn.Module) -> nn.Module:
    """The model in eval mode with random statistics and affine parameters, negative scales included."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            if part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                nn.init.normal_(part.weight, generator=generator)
                nn.init.normal_(part.bias, generator=generator)
    return model.eval()


def made(model: nn.Module, *shapes: tuple[int, ...]) -> Made:
    """The model, made `lively`, with normal inputs of these shapes."""
    generator = torch.Generator().manual_seed(1)
    return lively(model), tuple(torch.randn(shape, generator=generator) for shape in shapes)


def chain(shape: tuple[int, ...], *parts: Callable[[], nn.Module]) -> Callable[[], Made]:
    """Makes modules in a row that take one input of ``shape``."""
    return lambda: made(nn.Sequential(*(part() for part in parts)), shape)


def functional(
    shapes: tuple[tuple[int, ...], ...], function: Callable[..., Any], **parts: Callable[[], nn.Module | Tensor]
) -> Callable[[], Made]:
    """Makes a `Functional` of freshly made parts."""
    return lambda: made(Functional(function, **{name: part() for name, part in parts.items()}), *shapes)


def _trained(shape: tuple[int, ...], *parts: Callable[[], nn.Module]) -> Made:
    model, inputs = chain(shape, *parts)()
    return model.train(), inputs


_conv = partial(nn.Conv2d, 3, 6, 3)
_norm1, _norm2, _norm3 = (partial(kind, 6) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
_image = (2, 3, 7, 8)

batch_norm_fires = (
    Fires("affine", chain(_image, _conv, _norm2)),
    Fires("no affine parameters", chain(_image, _conv, partial(_norm2, affine=False))),
    Fires("other eps and momentum", chain(_image, _conv, partial(_norm2, eps=0.5, momentum=0.9))),
    Fires("twice in a row", chain(_image, _conv, _norm2, _norm2)),
    Fires(
        "one normalisation of two convolutions",
        functional((_image,), lambda m, x: m.n(m.a(x)) * m.n(m.b(x)), a=_conv, b=_conv, n=_norm2),
    ),
)
batch_norm_declines = (
    Declines("training mode", partial(_trained, _image, _conv, _norm2), "training mode"),
    Declines("no statistics", chain(_image, _conv, partial(_norm2, track_running_stats=False)), "running statistics"),
    Declines(
        "statistics computed in the graph",
        functional(
            (_image,),
            lambda m, x: nn.functional.batch_norm(m.a(x), x.mean((0, 2, 3)).repeat(2), m.variance, eps=0.1),
            a=_conv,
            variance=lambda: torch.ones(6),
        ),
        "running mean is computed in the graph",
    ),
    Declines(
        "statistics that are an input",
        functional((_image, (6,)), lambda m, x, v: nn.functional.batch_norm(m.a(x), v, v * v + 1), a=_conv),
        "running mean is inputs_1, an input",
    ),
    Declines(
        "saved statistics that are read",
        functional(
            (_image,),
            lambda m, x: sum(
                part.sum()
                for part in torch.ops.aten._native_batch_norm_legit_no_training(
                    m.a(x), None, None, m.mean, m.variance, 0.1, 1e-5
                )
            ),
            a=_conv,
            mean=lambda: torch.zeros(6),
            variance=lambda: torch.ones(6),
        ),
        "the statistics that it saves beside its result are read by getitem_1, getitem_2",
    ),
    Declines("nothing linear before it", chain((2, 6, 7, 8), _norm2), "reads an input of the program"),
    Declines("a nonlinear operator before it", chain(_image, _conv, nn.ReLU, _norm2), "reads the output of relu"),
)

convolution_fires = (
    Fires("1-D", chain((2, 3, 9), partial(nn.Conv1d, 3, 6, 3), _norm1)),
    Fires("2-D", chain(_image, _conv, _norm2)),
    Fires("3-D", chain((2, 3, 5, 4, 6), partial(nn.Conv3d, 3, 6, 3), _norm3)),
    Fires("without bias", chain(_image, partial(_conv, bias=False), _norm2)),
    Fires("stride, padding and dilation", chain(_image, partial(_conv, stride=2, padding=2, dilation=2), _norm2)),
    Fires("string padding", chain(_image, partial(_conv, padding="same"), _norm2)),
    Fires("reflected padding", chain(_image, partial(_conv, padding=1, padding_mode="reflect"), _norm2)),
    Fires("grouped", chain((2, 4, 7, 8), partial(nn.Conv2d, 4, 6, 3, groups=2), _norm2)),
    Fires("depthwise", chain(_image, partial(_conv, groups=3, bias=False), _norm2)),
    Fires("one channel", chain((2, 1, 7, 8), partial(nn.Conv2d, 1, 1, 3), partial(nn.BatchNorm2d, 1))),
    Fires(
        "one convolution called twice, two normalisations",
        functional((_image,), lambda m, x: m.n(m.a(x)) * m.o(m.a(x + 1)), a=_conv, n=_norm2, o=_norm2),
    ),
    Fires(
        "one convolution and normalisation called twice",
        functional((_image,), lambda m, x: m.n(m.a(x)) * m.n(m.a(x + 1)), a=_conv, n=_norm2),
    ),
    Fires(
        "a weight that is read elsewhere",
        functional((_image,), lambda m, x: m.n(m.a(x)) * m.a.weight.sum(), a=_conv, n=_norm2),
    ),
    Fires(
        "a weight that is also the next convolution's",
        functional(
            (_image,), lambda m, x: m.a(m.n(m.a(x))), a=partial(nn.Conv2d, 3, 3, 3), n=partial(nn.BatchNorm2d, 3)
        ),
    ),
    Fires(
        "an in-place reader",
        functional((_image,), lambda m, x: m.n(m.a(x)).relu_(), a=_conv, n=_norm2),
    ),
)
convolution_declines = (
    Declines(
        "an output that is read twice",
        functional((_image,), lambda m, x: m.n(y := m.a(x)) + y, a=_conv, n=_norm2),
        "is also read by add",
    ),
    Declines(
        "an output of the program",
        functional((_image,), lambda m, x: (m.n(y := m.a(x)), y), a=_conv, n=_norm2),
        "is also read by the program's output",
    ),
    Declines(
        "an output that is changed in place",
        functional((_image,), lambda m, x: m.n(m.a(x).mul_(2)), a=_conv, n=_norm2),
        "reads the output of mul_",
    ),
    Declines("no batch, 1-D", chain((3, 8), partial(nn.Conv1d, 3, 6, 3), _norm1), "channels on axis 0"),
    Declines("no batch, 2-D", chain((3, 8, 7), _conv, partial(nn.BatchNorm1d, 6)), "channels on axis 0"),
    Declines(
        "a weight that is an input",
        functional((_image, (6, 3, 3, 3)), lambda m, x, weight: m.n(nn.functional.conv2d(x, weight)), n=_norm2),
        "weight of conv2d is inputs_1, an input",
    ),
    Declines(
        "a weight computed in the graph",
        functional(
            (_image,),
            lambda m, x: m.n(nn.functional.conv2d(x, m.weight.tanh())),
            weight=lambda: torch.randn(6, 3, 3, 3),
            n=_norm2,
        ),
        "weight of conv2d is computed in the graph by tanh",
    ),
    Declines(
        "a bias that is an input",
        functional(
            (_image, (6,)),
            lambda m, x, bias: m.n(nn.functional.conv2d(x, m.weight, bias)),
            weight=lambda: torch.randn(6, 3, 3, 3),
            n=_norm2,
        ),
        "bias of conv2d is inputs_1, an input",
    ),
)

transposed_convolution_fires = (
    Fires("1-D", chain((2, 3, 9), partial(nn.ConvTranspose1d, 3, 6, 3), _norm1)),
    Fires("2-D", chain(_image, partial(nn.ConvTranspose2d, 3, 6, 3, stride=2, output_padding=1), _norm2)),
    Fires("3-D", chain((2, 3, 5, 4, 6), partial(nn.ConvTranspose3d, 3, 6, 3, padding=1), _norm3)),
    Fires("grouped", chain((2, 4, 7, 8), partial(nn.ConvTranspose2d, 4, 6, 3, groups=2), _norm2)),
    Fires("depthwise", chain((2, 6, 7, 8), partial(nn.ConvTranspose2d, 6, 6, 3, groups=6, bias=False), _norm2)),
    Fires("as many inputs as outputs", chain((2, 6, 7, 8), partial(nn.ConvTranspose2d, 6, 6, 3), _norm2)),
)
transposed_convolution_declines = (
    Declines("no batch", chain((3, 4), partial(nn.ConvTranspose1d, 3, 6, 3), _norm1), "channels on axis 0"),
)

linear_fires = (
    Fires("2-D", chain((4, 3), partial(nn.Linear, 3, 6), _norm1)),
    Fires("without bias", chain((4, 3), partial(nn.Linear, 3, 6, bias=False), _norm1)),
    Fires("square", chain((4, 6), partial(nn.Linear, 6, 6), _norm1)),
)
linear_declines = (
    Declines("3-D", chain((2, 6, 3), partial(nn.Linear, 3, 5), _norm1), "channels on axis 2"),
    Declines("3-D, equal sizes", chain((2, 6, 6), partial(nn.Linear, 6, 6), _norm1), "channels on axis 2"),
    Declines("4-D", chain((2, 6, 4, 3), partial(nn.Linear, 3, 6), _norm2), "channels on axis 3"),
    Declines(
        "a weight vector",
        functional(
            ((2, 6, 3),),
            lambda m, x: m.n(nn.functional.linear(x, m.weight)),
            weight=lambda: torch.randn(3),
            n=_norm1,
        ),
        "is a vector",
    ),
)

matrix_product_fires = (
    Fires(
        "addmm",
        functional(
            ((4, 3),),
            lambda m, x: m.n(torch.addmm(m.b, x, m.w.t())),
            b=lambda: torch.randn(6),
            w=lambda: torch.randn(6, 3),
            n=_norm1,
        ),
    ),
    Fires(
        "addmm of an untransposed constant, with alpha and beta",
        functional(
            ((4, 3),),
            lambda m, x: m.n(torch.addmm(m.b, x, m.w, alpha=3, beta=0.5)),
            b=lambda: torch.randn(6),
            w=lambda: torch.randn(3, 6),
            n=_norm1,
        ),
    ),
    Fires(
        "addmm with a bias for each element",
        functional(
            ((4, 6),),
            lambda m, x: m.n(torch.addmm(m.b, x, m.w)),
            b=lambda: torch.randn(4, 6),
            w=lambda: torch.randn(6, 6),
            n=_norm1,
        ),
    ),
    Fires(
        "mm",
        functional(
            ((4, 3),), lambda m, x: m.n(torch.mm(x, m.w.transpose(0, 1))), w=lambda: torch.randn(6, 3), n=_norm1
        ),
    ),
    Fires(
        "a transposition with two readers",
        functional(
            ((4, 6), (4, 6)),
            lambda m, x, y: (m.n(torch.mm(x, w := m.w.permute(1, 0))), torch.mm(y, w)),
            w=lambda: torch.randn(6, 6),
            n=_norm1,
        ),
    ),
)
matrix_product_declines = (
    Declines(
        "the constant is the first factor",
        functional(((3, 6),), lambda m, x: m.n(torch.mm(m.w, x)), w=lambda: torch.randn(4, 3), n=_norm1),
        "second factor of mm is inputs_0, an input",
    ),
)
