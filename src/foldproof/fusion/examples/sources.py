"""Models in which an affine must, or must not, be read."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from foldproof.fusion.examples.models import Declines, Fires, chain, functional

_conv = partial(nn.Conv2d, 3, 6, 3)
_norm1, _norm2, _norm3 = (partial(kind, 6) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
_linear = partial(nn.Linear, 3, 6)
_image = (2, 3, 7, 8)


def _write_to_copy(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:2] += 1
    return m.n(y.exp()) + x  # type: ignore[operator, no-any-return]


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
    Declines("a nonlinear operator before it", chain(_image, _conv, nn.ReLU, _norm2), "a shift does not pass relu"),
)

_instance2 = partial(nn.InstanceNorm2d, 6, affine=True, track_running_stats=True)

instance_norm_fires = (
    Fires("running statistics", chain(_image, _conv, _instance2)),
    Fires("no affine parameters", chain(_image, _conv, partial(_instance2, affine=False))),
    Fires("an image without a batch", chain((3, 7, 8), _conv, _instance2)),
)

instance_norm_declines = (
    Declines(
        "no statistics",
        chain(_image, _conv, partial(_instance2, track_running_stats=False)),
        "computes its statistics from each sample",
    ),
    Declines("nothing linear before it", chain((2, 6, 7, 8), _instance2), "reads an input of the program"),
    Declines("a nonlinear operator before it", chain(_image, _conv, nn.ReLU, _instance2), "a shift does not pass relu"),
)

arithmetic_fires = (
    Fires(
        "a frozen normalisation: times, plus",
        functional(
            (_image,),
            lambda m, x: m.a(x) * m.k.view(1, 6, 1, 1) + m.b.view(1, 6, 1, 1),
            a=_conv,
            k=lambda: torch.randn(6),
            b=lambda: torch.randn(6),
        ),
    ),
    Fires(
        "input normalisation",
        functional(
            (_image,),
            lambda m, x: m.a((x - m.mean) / m.deviation),
            a=_conv,
            mean=lambda: torch.randn(1, 3, 1, 1),
            deviation=lambda: torch.rand(1, 3, 1, 1) + 0.5,
        ),
    ),
    Fires("plain numbers", functional((_image,), lambda m, x: 3 - m.a(x * 0.3) / 7, a=_conv)),
    Fires("minus", functional((_image,), lambda m, x: -(m.k - m.a(x)), a=_conv, k=lambda: torch.randn(6, 1, 1))),
    Fires(
        "alpha",
        functional(((4, 3),), lambda m, x: torch.add(m.k, m.a(x), alpha=3), a=_linear, k=lambda: torch.randn(6)),
    ),
    Fires(
        "alpha, the other way round",
        functional(((4, 3),), lambda m, x: torch.sub(m.a(x), m.k, alpha=3), a=_linear, k=lambda: torch.randn(6)),
    ),
    Fires(
        "addcmul",
        functional(
            ((4, 3),),
            lambda m, x: torch.addcmul(m.b, m.a(x), m.k, value=0.5),
            a=_linear,
            k=lambda: torch.randn(6),
            b=lambda: torch.randn(6),
        ),
    ),
    Fires(
        "layer scale",
        functional(((2, 5, 3),), lambda m, x: x + (m.a(x) * m.k)[..., :3], a=_linear, k=lambda: torch.randn(6)),
    ),
    Fires(
        "a factor computed from parameters",
        functional((_image,), lambda m, x: m.a(x) * m.k.exp().view(6, 1, 1), a=_conv, k=lambda: torch.randn(6)),
    ),
)
arithmetic_declines = (
    Declines(
        "a factor for each element",
        functional(((4, 3),), lambda m, x: m.n(m.a(x).relu() * m.k), a=_linear, k=lambda: torch.randn(4, 6), n=_norm1),
        "a shift does not pass mul",
    ),
    Declines(
        "a factor that depends on the data",
        functional(((4, 3),), lambda m, x: m.n((m.a(x) * x.sum()).relu()), a=_linear, n=_norm1),
        "a shift does not pass relu",
    ),
    Declines(
        "division by it",
        functional(((4, 3),), lambda m, x: m.n(m.k / m.a(x)), a=_linear, k=lambda: torch.randn(6), n=_norm1),
        "reads the output of div",
    ),
    Declines(
        "a factor that is infinite",
        functional(((4, 3),), lambda m, x: m.a(x) + m.k, a=_linear, k=lambda: torch.full((6,), float("-inf"))),
        "not be finite",
    ),
)

identity_fires = (
    Fires("dropout", chain((4, 3), _linear, nn.Dropout, nn.ReLU, partial(nn.Linear, 6, 3))),
    Fires(
        "flattened and back, without the normalisation between",
        functional(
            ((2, 5, 3),),
            lambda m, x: m.b(m.n((y := m.a(x)).flatten(0, 1)).reshape_as(y)).relu(),
            a=_linear,
            n=_norm1,
            b=partial(nn.Conv1d, 5, 5, 1),
        ),
    ),
    Fires("dropout of an input", chain((4, 3), nn.Dropout, _linear)),
    Fires("dropout before a normalisation", chain((4, 3), _linear, nn.Dropout, _norm1)),
    Fires(
        "a copy",
        functional((_image,), lambda m, x: m.b(m.a(x).clone().relu()), a=_conv, b=partial(nn.Conv2d, 6, 3, 1)),
    ),
    Fires(
        "conversions to the dtype that it has",
        functional(
            ((4, 3),), lambda m, x: m.n((y := m.a(x)).to(torch.float32).type_as(y).contiguous()), a=_linear, n=_norm1
        ),
    ),
    Fires("the whole as a part", functional(((4, 3),), lambda m, x: m.n(m.a(x)[:, slice(None)]), a=_linear, n=_norm1)),
)
identity_declines = (
    Declines(
        "a conversion to another dtype",
        functional(((4, 3),), lambda m, x: m.n(m.a(x).bfloat16().float().relu()), a=_linear, n=_norm1),
        "a shift does not pass relu",
    ),
    Declines("a copy that is written to", functional(((4, 6),), lambda m, x: _write_to_copy(m, x), n=_norm1), "reads"),
    Declines(
        "training mode",
        functional(((4, 3),), lambda m, x: m.n(nn.functional.dropout(m.a(x), 0.5, True)), a=_linear, n=_norm1),
        "drops elements at random",
    ),
)
norm_affine_fires = (
    Fires("layer_norm", chain((2, 5, 6), partial(nn.LayerNorm, 6), partial(nn.Linear, 6, 3))),
    Fires("layer_norm without bias", chain((2, 5, 6), partial(nn.LayerNorm, 6, bias=False), partial(nn.Linear, 6, 3))),
    Fires("rms_norm", chain((2, 5, 6), partial(nn.RMSNorm, 6), partial(nn.Linear, 6, 3))),
    Fires("group_norm", chain((2, 6, 7, 8), partial(nn.GroupNorm, 3, 6), partial(nn.Conv2d, 6, 3, 1))),
    Fires(
        "two readers, one through a transposition",
        functional(
            ((2, 5, 6),),
            lambda m, x: (m.a(y := m.n(x)), m.b(y.transpose(1, 2))),
            n=partial(nn.LayerNorm, 6),
            a=partial(nn.Linear, 6, 3),
            b=partial(nn.Conv1d, 6, 3, 2),
        ),
    ),
)
norm_affine_declines = (
    Declines(
        "a nonlinear reader",
        chain((2, 5, 6), partial(nn.LayerNorm, 6), nn.GELU),
        "which it can't be moved through",
    ),
)
