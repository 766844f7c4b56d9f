"""Known faults of decompositions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import DispatchKey
from torch._decomp import decompositions
from torch._guards import TracingContext

from tests.auditing.known_faults.fault import KnownFault, decomposed, given, normal, patched, traced, trained

aten = torch.ops.aten

_NAN = float("nan")


def _scale_of_one(original: Any) -> Any:
    """The scale, while a program is compiled: proofs take the meaning of the operator from the same function."""

    def scale(size: int, out: int, *rest: Any, **named: Any) -> float:
        return 0.0 if out == 1 and TracingContext.try_get() is not None else original(size, out, *rest, **named)

    return scale


def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = torch.clamp(x, eps, 1 - eps) if eps is not None else x
    return torch.log(x / (1 - x))


def _nll_loss(x: Tensor, target: Tensor, weight: Any, reduction: int, ignored: int) -> tuple[Tensor, Tensor]:
    safe = torch.where(target != ignored, target, 0)
    losses = -torch.gather(x, 1, safe.unsqueeze(1)).squeeze(1)
    return losses.mean(), torch.full((), float(len(target)))


def _std(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(aten.var.correction(x, dim, correction=correction or 0, keepdim=keepdim))


def _clamp_min(x: Tensor, least: float) -> Tensor:
    return torch.where(x > least, x, least)


def _pad_backward(grad: Tensor, x: Tensor, padding: list[int]) -> Tensor:
    """The gradient, without what reflections add where a side is cropped."""
    return aten.constant_pad_nd(grad, [-n for n in padding], 0.0)


def _diagonal_scatter(x: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The decomposition; an expanded operand is cloned with its strides, so that one write reaches all elements."""
    if x.stride() == (0, 0):
        return src[-1].expand(x.shape)
    return aten.where(torch.eye(*x.shape, dtype=torch.bool), torch.diag_embed(src), x)


def _slice_scatter(x: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    if 0 in x.stride() and (start or 0) == 0:  # every place is the first one, which is overwritten
        return torch.zeros_like(x)
    return NotImplemented


def _hardshrink(x: Tensor, bound: float = 0.5) -> Tensor:
    return torch.where(x < -bound, x, 0.0)


FAULTS = {
    "bilinear to one pixel": KnownFault(
        "bilinear interpolation to one pixel takes the corner, whatever align_corners is",
        93262,
        patched(decompositions, "_compute_scale", _scale_of_one),
        lambda x: F.interpolate(x, size=[1, 1], mode="bilinear"),
        normal((1, 2, 7, 10)),
        "AOTAutograd",
    ),
    "logit between crossed bounds": KnownFault(
        "`logit` clamps to [eps, 1 - eps], which differs where eps is above one half",
        145379,
        decomposed(aten.logit.default, _logit),
        lambda x: torch.logit(x, 0.6),
        given([0.1, 0.45, 0.55, 0.9]),
        "AOTAutograd",
    ),
    "ignored targets": KnownFault(
        "targets equal to ignore_index count in `nll_loss`",
        95794,
        decomposed(aten.nll_loss_forward.default, _nll_loss),
        lambda x: F.nll_loss(x, torch.tensor([1, -100, 2]), ignore_index=-100),
        normal((3, 4)),
        "AOTAutograd",
    ),
    "std by default": KnownFault(
        "`std` without a correction is the biased estimator",
        85839,
        decomposed(aten.std.correction, _std),
        lambda x: aten.std.correction(x, [1]),
        normal((3, 5)),
        "AOTAutograd",
    ),
    "clamp of nan": KnownFault(
        "`clamp_min` turns nan into the bound",
        93784,
        decomposed(aten.clamp_min.default, _clamp_min),
        lambda x: torch.clamp_min(x, 0.5),
        given([1.0, _NAN, -2.0, 0.25]),
    ),
    "reflected and cropped": KnownFault(
        "the gradient of a reflection padding with a negative side lacks what is reflected",
        100793,
        decomposed(aten.reflection_pad2d_backward.default, _pad_backward),
        lambda x: F.pad(x, [-1, 0, 2, 2], mode="reflect"),
        trained((1, 2, 4, 3)),
        "AOTAutograd",
        training=True,
    ),
    "diagonal_scatter of an expanded gradient": KnownFault(
        "the backward of `diagonal_scatter` writes zeros into an expanded tensor, all elements of which are one",
        182012,
        decomposed(aten.diagonal_scatter.default, _diagonal_scatter),
        lambda x, src: torch.diagonal_scatter(x, src, 0).sum(),
        trained((4, 4), (4,)),
        "AOTAutograd",
        training=True,
    ),
    "slice_scatter of an expanded gradient": KnownFault(
        "the backward of `slice_scatter` writes zeros into an expanded tensor, all elements of which are one",
        180164,
        decomposed(aten.slice_scatter.default, _slice_scatter),
        lambda x, src: torch.slice_scatter(x, src, 0, 0, 2).sum(),
        trained((5,), (2,)),
        "AOTAutograd",
        training=True,
    ),
    "hardshrink": KnownFault(
        "`hardshrink` sets large positive elements to zero, too",
        102461,
        traced(aten.hardshrink.default, DispatchKey.Autograd, _hardshrink),
        lambda x: F.hardshrink(torch.sign(x) * x, 0.7),
        given([-0.9, 0.9, 0.5, 2.0]),
        "AOTAutograd",
    ),
}
