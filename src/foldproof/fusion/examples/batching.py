"""Models in which operators that read one tensor must, or must not, be joined."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from foldproof.fusion.examples.models import Declines, Example, Fires, Functional, functional, made

_six = partial(nn.Linear, 8, 6)
_conv = partial(nn.Conv2d, 3, 6, 3)
_image = (2, 3, 7, 8)
_matrix = partial(torch.randn, 8, 6)


def _attention(m: Any, x: Tensor) -> Tensor:
    """Compute attention of two heads of size four, whose keys and values may be of one head."""
    q, k, v = (part(x).unflatten(-1, (-1, 4)).transpose(-3, -2) for part in (m.q, m.k, m.v))
    found = scaled_dot_product_attention(q, k, v, enable_gqa=k.shape != q.shape)
    return found.transpose(-3, -2).flatten(-2)


def _experts(m: Any, x: Tensor) -> Tensor:
    """Compute all experts, weighted by a softmax over one score for each."""
    found = torch.stack([torch.relu(expert(x)) for expert in (m.a, m.b, m.c)], -1)
    return (found * torch.softmax(m.gate(x), -1).unsqueeze(-2)).sum(-1)


def _half_trained() -> Example:
    model, inputs = made(Functional(lambda m, x: m.a(x).relu() + m.b(x).tanh(), a=_six(), b=_six()), (4, 8))
    model.a.requires_grad_(False)
    return model, inputs


_square = partial(nn.Linear, 8, 8)

batching_fires = (
    Fires("queries, keys and values", functional(((2, 5, 8),), _attention, q=_square, k=_square, v=_square)),
    Fires(
        "of uneven sizes (grouped queries)",
        functional(
            ((2, 5, 8),),
            _attention,
            q=partial(_square, bias=False),
            k=partial(nn.Linear, 8, 4, bias=False),
            v=partial(nn.Linear, 8, 4, bias=False),
        ),
    ),
    Fires("a gate", functional(((4, 8),), lambda m, x: silu(m.g(x)) * m.u(x), g=_six, u=_six)),
    Fires(
        "experts and their scores",
        functional(((4, 8),), _experts, a=_six, b=_six, c=_six, gate=partial(nn.Linear, 8, 3)),
    ),
    Fires(
        "biases of some",
        functional(
            ((4, 8),), lambda m, x: m.a(x).relu() * m.b(x) + m.c(x), a=_six, b=partial(_six, bias=False), c=_six
        ),
    ),
    Fires(
        "what follows all of them, done once",
        functional(
            ((4, 8),),
            lambda m, x: (m.a(x).relu() * 2).tanh() + (m.b(x).relu() * 2).tanh().sum(0),
            a=_six,
            b=_six,
        ),
    ),
    Fires("4-D", functional(((2, 3, 5, 8),), lambda m, x: m.a(x).relu() * m.b(x), a=_six, b=_six)),
    Fires("one row", functional(((8,),), lambda m, x: m.a(x).relu() * m.b(x), a=_six, b=_six)),
    Fires("one that two read", functional(((4, 8),), lambda m, x: (y := m.a(x)).relu() * y + m.b(x), a=_six, b=_six)),
    Fires(
        "matmul", functional(((2, 5, 8),), lambda m, x: torch.matmul(x, m.v).relu() * (x @ m.w), v=_matrix, w=_matrix)
    ),
    Fires(
        "addmm and mm",
        functional(
            ((4, 8),),
            lambda m, x: torch.addmm(m.b, x, m.v).relu() * torch.mm(x, m.w),
            v=_matrix,
            w=_matrix,
            b=partial(torch.randn, 6),
        ),
    ),
    Fires(
        "addmm with alpha and beta",
        functional(
            ((4, 8),),
            lambda m, x: torch.addmm(m.b, x, m.v, alpha=2, beta=3).relu() * torch.addmm(m.b, x, m.w, alpha=2, beta=3),
            v=_matrix,
            w=_matrix,
            b=partial(torch.randn, 6),
        ),
    ),
    Fires(
        "of equal sizes, of a tensor each",
        functional(
            ((4, 8), (4, 8), (4, 8)),
            lambda m, x, y, z: (a := m.a(x), b := m.b(y), c := m.c(z), a.relu() * b.tanh() + c)[3],
            a=_six,
            b=partial(_six, bias=False),
            c=_six,
        ),
    ),
    Fires(
        "of equal sizes, of a part of the input each",
        functional(
            ((4, 16),),
            lambda m, x: torch.cat([f(part).relu() for f, part in zip((m.a, m.b), x.chunk(2, -1))], -1),
            a=partial(_six, bias=False),
            b=partial(_six, bias=False),
        ),
    ),
    Fires(
        "convolutions of size 1",
        functional(
            (_image,),
            lambda m, x: m.a(x).relu().sum() * m.b(x).tanh(),
            a=partial(nn.Conv2d, 3, 6, 1),
            b=partial(nn.Conv2d, 3, 4, 1, bias=False),
        ),
    ),
    Fires(
        "convolutions of equal geometry",
        functional(
            (_image,),
            lambda m, x: m.a(x).relu() * m.b(x).tanh(),
            a=partial(_conv, stride=2, padding=1),
            b=partial(_conv, stride=2, padding=1),
        ),
    ),
    Fires(
        "convolutions of a line, without a batch",
        functional(
            ((3, 9),),
            lambda m, x: m.a(x).relu() * m.b(x),
            a=partial(nn.Conv1d, 3, 6, 3),
            b=partial(nn.Conv1d, 3, 6, 3),
        ),
    ),
)
batching_declines = (
    Declines(
        "the input is changed between them",
        functional(((4, 8),), lambda m, x: (y := x * 2, a := m.a(y), y[0].add_(1), a * m.b(y))[3], a=_six, b=_six),
        "is changed in place by add_",
    ),
    Declines(
        "a weight is changed between them",
        functional(
            ((4, 8),),
            lambda m, x: (a := m.a(x), m.w.mul_(2), a * linear(x, m.w))[2],
            a=_six,
            w=partial(torch.randn, 6, 8),
        ),
        "is computed in the graph by mul_",
    ),
    Declines(
        "an output is changed in place",
        functional(((4, 8),), lambda m, x: m.a(x).relu_() * m.b(x), a=_six, b=_six),
        "is changed in place",
    ),
    Declines(
        "one depends on the other",
        functional(((8, 8),), lambda m, x: (a := m.a(x)).relu() * linear(x, a), a=_square),
        "is computed in the graph",
    ),
    Declines(
        "the outputs of the program",
        functional(((4, 8),), lambda m, x: (m.a(x), m.b(x)), a=_six, b=_six),
        "is the program's output",
    ),
    Declines(
        "a table of embeddings is a weight, too",
        functional(
            ((4, 8),),
            lambda m, x: m.a(x).relu() * linear(x, m.e.weight) + m.e.weight.sum(),
            a=partial(nn.Linear, 8, 60),
            e=partial(nn.Embedding, 60, 8),
        ),
        "because other operators read the old ones",
    ),
    Declines("some are trained", _half_trained, "are trained"),
)
