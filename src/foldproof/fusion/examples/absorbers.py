"""Models in which an affine must, or must not, be absorbed."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from foldproof.fusion.examples.models import Declines, Fires, chain, functional

_conv = partial(nn.Conv2d, 3, 6, 3)
_norm1, _norm2, _norm3 = (partial(kind, 6) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
_linear = partial(nn.Linear, 3, 6)
_image = (2, 3, 7, 8)
_vector = partial(torch.randn, 6)
_matrix = partial(torch.randn, 3, 6)
_table = partial(nn.Embedding, 9, 6)
_bag = partial(nn.EmbeddingBag, 9, 6)

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
        functional((_image,), lambda m, x: torch.maximum(m.n(m.a(x)), m.a.weight.sum()), a=_conv, n=_norm2),
    ),
    Fires(
        "a weight that is also the next convolution's",
        functional(
            (_image,), lambda m, x: m.a(m.n(m.a(x))), a=partial(nn.Conv2d, 3, 3, 3), n=partial(nn.BatchNorm2d, 3)
        ),
    ),
    Fires(
        "a weight computed in the graph",
        functional(
            (_image,),
            lambda m, x: m.n(nn.functional.conv2d(x, m.weight.tanh())),
            weight=lambda: torch.randn(6, 3, 3, 3),
            n=_norm2,
        ),
    ),
    Fires("on its input", chain(_image, partial(nn.BatchNorm2d, 3), _conv)),
    Fires("on its input, grouped", chain((2, 6, 7, 8), _norm2, partial(nn.Conv2d, 6, 4, 3, groups=2))),
    Fires(
        "scaled input, padded",
        functional((_image,), lambda m, x: m.a(x * m.k), a=partial(_conv, padding=1), k=lambda: torch.randn(3, 1, 1)),
    ),
    Fires(
        "an input that two read",
        functional(
            ((2, 6, 7),),
            lambda m, x: (m.a(y := m.n(x)), m.b(y)),
            n=_norm1,
            a=partial(nn.Conv1d, 6, 3, 3),
            b=partial(nn.Conv1d, 6, 3, 1),
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
    Declines(
        "shifted input, padded", chain(_image, partial(nn.BatchNorm2d, 3), partial(_conv, padding=1)), "pads its input"
    ),
    Declines("no batch, 1-D", chain((3, 8), partial(nn.Conv1d, 3, 6, 3), _norm1), "channels on axis 0"),
    Declines("no batch, 2-D", chain((3, 8, 7), _conv, partial(nn.BatchNorm1d, 6)), "channels on axis 0"),
    Declines(
        "a weight that is an input",
        functional((_image, (6, 3, 3, 3)), lambda m, x, weight: m.n(nn.functional.conv2d(x, weight)), n=_norm2),
        "weight of conv2d is inputs_1, an input",
    ),
    Declines(
        "a weight computed from the data",
        functional(
            (_image,),
            lambda m, x: m.n(nn.functional.conv2d(x, m.weight * x.sum())),
            weight=lambda: torch.randn(6, 3, 3, 3),
            n=_norm2,
        ),
        "weight of conv2d is computed in the graph by mul",
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
    Fires(
        "a scaled input, grouped",
        functional(
            ((2, 6, 4),),
            lambda m, x: m.a(x * m.k.view(6, 1)),
            a=partial(nn.ConvTranspose1d, 6, 4, 3, groups=2),
            k=_vector,
        ),
    ),
    Fires("as many inputs as outputs", chain((2, 6, 7, 8), partial(nn.ConvTranspose2d, 6, 6, 3), _norm2)),
)

transposed_convolution_declines = (
    Declines("a shifted input", chain((2, 6, 4), _norm1, partial(nn.ConvTranspose1d, 6, 3, 3)), "reaches fewer taps"),
    Declines("no batch", chain((3, 4), partial(nn.ConvTranspose1d, 3, 6, 3), _norm1), "channels on axis 0"),
)

linear_fires = (
    Fires("2-D", chain((4, 3), partial(nn.Linear, 3, 6), _norm1)),
    Fires("without bias", chain((4, 3), partial(nn.Linear, 3, 6, bias=False), _norm1)),
    Fires("square", chain((4, 6), partial(nn.Linear, 6, 6), _norm1)),
    Fires("on its input", chain((4, 6), _norm1, partial(nn.Linear, 6, 3))),
    Fires("on its input, without bias", chain((4, 6), _norm1, partial(nn.Linear, 6, 3, bias=False))),
)

linear_declines = (
    Declines(
        "an input along another axis",
        functional(((2, 6, 6),), lambda m, x: m.a(m.n(x)), a=partial(nn.Linear, 6, 4), n=_norm1),
        "channels on axis 2",
    ),
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
        "matmul, which becomes linear",
        functional(((2, 5, 3),), lambda m, x: torch.matmul(x, m.w) * m.k + m.b, w=_matrix, k=_vector, b=_vector),
    ),
    Fires(
        "matmul with a transposed constant, scaled on its input",
        functional(
            ((2, 5, 3),),
            lambda m, x: torch.matmul((x + m.b[:3]) * m.k[:3], m.w.t()),
            w=lambda: torch.randn(6, 3),
            k=_vector,
            b=_vector,
        ),
    ),
    Fires(
        "bmm, which becomes baddbmm",
        functional(
            ((2, 5, 3),),
            lambda m, x: torch.bmm(x * m.j, m.w) * m.k + m.b,
            w=lambda: torch.randn(2, 3, 6),
            j=lambda: torch.randn(2, 1, 3),
            k=lambda: torch.randn(2, 1, 6),
            b=_vector,
        ),
    ),
    Fires(
        "baddbmm",
        functional(
            ((2, 5, 3),),
            lambda m, x: torch.baddbmm(m.b, x, m.w, alpha=2, beta=3) * m.k + m.k,
            w=lambda: torch.randn(2, 3, 6),
            k=lambda: torch.randn(6),
            b=lambda: torch.randn(2, 1, 6),
        ),
    ),
    Fires(
        "addmm on its input, with alpha and beta",
        functional(
            ((4, 6),),
            lambda m, x: torch.addmm(m.b, m.n(x), m.w, alpha=2, beta=3),
            w=lambda: torch.randn(6, 5),
            b=lambda: torch.randn(5),
            n=_norm1,
        ),
    ),
    Fires(
        "a constant first factor, scaled",
        functional(
            ((5, 3, 4),), lambda m, x: torch.matmul(m.w, x) * m.k.view(6, 1), w=lambda: torch.randn(6, 3), k=_vector
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
        "has its channels on axis 0 and the affine is along axis 1",
    ),
    Declines(
        "a shift of a product that has no bias",
        functional(
            ((5, 3, 6),),
            lambda m, x: torch.matmul(m.w, x) + m.b,
            w=lambda: torch.randn(4, 3),
            b=lambda: torch.randn(4, 1),
        ),
        "has no bias that could take the shift",
    ),
)

einsum_fires = (
    Fires(
        "an output feature",
        functional(((2, 5, 3),), lambda m, x: torch.einsum("bik,kn->bin", x, m.w) * m.k, w=_matrix, k=_vector),
    ),
    Fires(
        "an input feature",
        functional(
            ((2, 5, 3),),
            lambda m, x: torch.einsum("nk,bik->bni", m.w, x * m.k[:3]),
            w=lambda: torch.randn(6, 3),
            k=_vector,
        ),
    ),
)
einsum_declines = (
    Declines(
        "a shift",
        functional(((2, 5, 3),), lambda m, x: torch.einsum("bik,kn->bin", x, m.w) + m.k, w=_matrix, k=_vector),
        "no bias that could take the shift",
    ),
)

embedding_fires = (
    Fires(
        "scale and shift",
        functional(((2, 5),), lambda m, x: m.e(x.abs().long()) * m.k + m.b, e=_table, k=_vector, b=_vector),
    ),
)
embedding_declines = (
    Declines(
        "another axis",
        functional(((2, 6),), lambda m, x: m.n(m.e(x.abs().long())), e=_table, n=_norm1),
        "has its channels on axis 2",
    ),
)

embedding_bag_fires = (
    Fires("the mean of rows", functional(((2, 5),), lambda m, x: m.e(x.abs().long()) * m.k, e=_bag, k=_vector)),
    Fires(
        "a weighted sum",
        functional(
            ((2, 5),),
            lambda m, x: m.e(x.abs().long(), per_sample_weights=x) / m.k,
            e=partial(_bag, mode="sum"),
            k=_vector,
        ),
    ),
    Fires(
        "bags of different sizes, one of them empty",
        functional(
            ((8,),),
            lambda m, x: m.e(x.abs().long(), torch.tensor([0, 3, 3])) * m.k,
            e=partial(_bag, mode="sum", padding_idx=0),
            k=_vector,
        ),
    ),
)
embedding_bag_declines = (
    Declines(
        "a shift",
        functional(((2, 5),), lambda m, x: m.n(m.e(x.abs().long())), e=_bag, n=_norm1),
        "has no bias that could take the shift",
    ),
    Declines(
        "the largest of rows",
        functional(((2, 5),), lambda m, x: m.e(x.abs().long()) * m.k, e=partial(_bag, mode="max"), k=_vector),
        "takes the largest",
    ),
)

own_affine_fires = (
    Fires(
        "layer_norm",
        functional(((2, 5, 6),), lambda m, x: m.l(x) * m.k + m.b, l=partial(nn.LayerNorm, 6), k=_vector, b=_vector),
    ),
    Fires(
        "group_norm",
        functional(((2, 6, 5),), lambda m, x: m.n(m.l(x)), l=partial(nn.GroupNorm, 2, 6), n=_norm1),
    ),
    Fires("rms_norm", functional(((2, 5, 6),), lambda m, x: m.l(x) * m.k, l=partial(nn.RMSNorm, 6), k=_vector)),
)
own_affine_declines = (
    Declines(
        "no weight of its own",
        functional(
            ((2, 5, 6),), lambda m, x: m.l(x) * m.k, l=partial(nn.LayerNorm, 6, elementwise_affine=False), k=_vector
        ),
        "has no weight that could take the scale",
    ),
)
