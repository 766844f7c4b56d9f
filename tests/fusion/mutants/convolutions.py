"""Convolutions that absorb what they should not, or with the wrong weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.fusion.absorb import convolution
from foldproof.fusion.absorb.convolution import Convolution, TransposedConvolution, _Operands
from foldproof.fusion.examples import chain, functional
from foldproof.rewriting.expression import Expression
from mutants.mutant import (
    Mutant,
    Patch,
    along,
    around,
    decomposed,
    exported,
    flipped,
    mutant,
    nothing,
    patch,
    unshifted,
)

_norm = partial(nn.BatchNorm2d, 3)
_four, _six = partial(nn.BatchNorm2d, 4), partial(nn.BatchNorm1d, 6)
_image = (2, 3, 7, 8)

# Every axis of a weight has the same size, so that a mistaken one is no error of shapes.
conv = exported(chain(_image, partial(nn.Conv2d, 3, 3, 3), _norm))
without_bias = exported(chain(_image, partial(nn.Conv2d, 3, 3, 3, bias=False), _norm))
depthwise = exported(chain(_image, partial(nn.Conv2d, 3, 3, 3, groups=3), _norm))
core_conv = decomposed(conv)
before = exported(chain(_image, _norm, partial(nn.Conv2d, 3, 3, 3)))
before_without_bias = exported(chain(_image, _norm, partial(nn.Conv2d, 3, 3, 3, bias=False)))
grouped = exported(chain((2, 4, 7, 8), partial(nn.Conv2d, 4, 4, 2, groups=2), _four))
before_groups = exported(chain((2, 4, 7, 8), _four, partial(nn.Conv2d, 4, 4, 2, groups=2)))
padded = exported(chain(_image, _norm, partial(nn.Conv2d, 3, 3, 3, padding=1)))
padded_on_one_side = exported(chain(_image, _norm, partial(nn.Conv2d, 3, 3, 3, padding=(0, 1))))
same = exported(chain(_image, _norm, partial(nn.Conv2d, 3, 3, 3, padding="same")))
core_padded = decomposed(padded)
unbatched = exported(chain((3, 5), partial(nn.Conv1d, 3, 3, 3), partial(nn.BatchNorm1d, 3)))
unbatched_before = exported(chain((6, 6), _six, partial(nn.Conv1d, 6, 6, 3)))
another_axis = exported(
    functional(((2, 3, 6),), lambda m, x: m.n(m.a(x).transpose(1, 2)).relu(), a=partial(nn.Conv1d, 3, 6, 1), n=_six)
)
another_axis_before = exported(
    functional(((2, 6, 6),), lambda m, x: m.a(m.n(x).transpose(1, 2)), a=partial(nn.Conv1d, 6, 3, 1), n=_six)
)
transposed = exported(chain(_image, partial(nn.ConvTranspose2d, 3, 3, 3), _norm))
core_transposed = decomposed(transposed)
grouped_transposed = exported(chain((2, 4, 7, 8), partial(nn.ConvTranspose2d, 4, 4, 3, groups=2), _four))
before_transposed = exported(
    functional(
        ((2, 6, 4),), lambda m, x: m.a(x * m.k), a=partial(nn.ConvTranspose1d, 6, 6, 3), k=lambda: torch.randn(6, 1)
    )
)
shifted_transposed = exported(chain((2, 6, 4), _six, partial(nn.ConvTranspose1d, 6, 3, 3)))
unbatched_transposed = exported(chain((3, 1), partial(nn.ConvTranspose1d, 3, 3, 3), partial(nn.BatchNorm1d, 3)))


def rows(wrong: Callable[[Tensor, Tensor], Tensor]) -> Patch:
    return patch(convolution, "scale_rows", wrong)


def inputs(wrong: Callable[[Tensor, Tensor, int], Tensor]) -> Patch:
    return patch(convolution, "scale_inputs", wrong)


def transposed_rows(wrong: Callable[[Tensor, Tensor, int], Tensor]) -> Patch:
    return patch(convolution, "scale_transposed", wrong)


def sums(wrong: Callable[[Tensor, Tensor, int], Tensor]) -> Patch:
    return patch(convolution, "convolve_constant", wrong)


def bias(wrong: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Patch:
    """Another bias than scale·bias + shift."""
    return patch(convolution, "move_bias", lambda b, scale, shift: Expression(wrong, (b, scale, shift)))


def swapped_groups(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Scale as if neighbouring inputs were in different groups."""
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(inputs // groups, groups, outputs, *kernel)
    return (split * scale.reshape(1, groups, outputs, *[1] * len(kernel))).reshape(weight.shape)


def swapped_outputs(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Scale as if neighbouring outputs were in different groups."""
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *kernel)
    turned = scale.reshape(outputs, groups).t().reshape(groups, 1, outputs, *[1] * len(kernel))
    return (split * turned).reshape(weight.shape)


def first_group(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Scale as if all groups read the inputs of the first."""
    return along(1)(weight, scale[: weight.shape[1]])


def groups_reversed(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    return scale_inputs(weight, scale.reshape(groups, -1).flip(0).reshape(-1), groups)


def per_output(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Scale as if each group of outputs were an input."""
    return along(0)(weight, scale)


def on_axis(wrong: int) -> Patch:
    """The channels are thought to be on another axis."""

    def vectors(self: _Operands, affine: Any, channels: int, where: str) -> Any:
        return affine.vectors(wrong % affine.channels.dim(), channels)

    return patch(_Operands, "vectors", vectors)


def installs(*roles: str) -> Patch:
    """Only some of the new constants are put in place."""
    return around(
        Convolution,
        "install",
        lambda original, node, new: original(node, {role: new[role] for role in roles}),
    )


def told(home: Any, side: str, wrong: Callable[[Any], Any]) -> Patch:
    """An absorber is asked for another affine."""

    def broken(original: Any, self: Any, *arguments: Any) -> Any:
        *others, affine, constants = arguments
        return original(self, *others, wrong(affine), constants)

    return around(home, side, broken)


scale_inputs = convolution.scale_inputs
no_axes = patch(convolution, "require_axes", nothing)
never_pads = patch(_Operands, "pads", lambda self: False)

MUTANTS: dict[str, Mutant] = {
    # weights, on the output
    "weight not scaled": mutant(conv, rows(lambda w, s: w * 1)),
    "weight divided": mutant(conv, rows(lambda w, s: w / s.reshape(-1, 1, 1, 1))),
    "weight scaled twice": mutant(conv, rows(lambda w, s: w * s.square().reshape(-1, 1, 1, 1))),
    "weight shifted": mutant(conv, rows(lambda w, s: w + s.reshape(-1, 1, 1, 1))),
    "weight scaled without sign": mutant(conv, rows(lambda w, s: w * s.abs().reshape(-1, 1, 1, 1))),
    "input channels scaled": mutant(conv, rows(along(1))),
    "rows of the kernel scaled": mutant(conv, rows(along(2))),
    "columns of the kernel scaled": mutant(conv, rows(along(3))),
    "columns of a depthwise kernel scaled": mutant(depthwise, rows(along(3))),
    "outputs in reverse": mutant(conv, rows(lambda w, s: along(0)(w, s.flip(0)))),
    "input channels of a core convolution scaled": mutant(core_conv, rows(along(1))),
    "groups of outputs exchanged": mutant(grouped, rows(lambda w, s: along(0)(w, s.reshape(2, 2).flip(0).reshape(-1)))),
    "outputs numbered across groups": mutant(grouped, rows(lambda w, s: along(0)(w, s.reshape(2, 2).t().reshape(-1)))),
    # biases
    "bias not scaled": mutant(conv, bias(lambda b, a, c: b + c)),
    "bias not shifted": mutant(conv, bias(lambda b, a, c: b * a)),
    "bias dropped": mutant(conv, bias(lambda b, a, c: c * 1)),
    "bias kept": mutant(conv, bias(lambda b, a, c: b * 1)),
    "shift scaled": mutant(conv, bias(lambda b, a, c: (b + c) * a)),
    "shift subtracted": mutant(conv, bias(lambda b, a, c: b * a - c)),
    "bias divided": mutant(conv, bias(lambda b, a, c: b / a + c)),
    "bias in reverse": mutant(conv, bias(lambda b, a, c: (b * a + c).flip(0))),
    "bias of a core convolution not scaled": mutant(core_conv, bias(lambda b, a, c: b + c)),
    "no bias where there was none": mutant(without_bias, patch(convolution, "remake_bias", lambda *a: ())),
    "bias of a transposed convolution not scaled": mutant(transposed, bias(lambda b, a, c: b + c)),
    # weights, on the input
    "input scale on the outputs": mutant(before, inputs(per_output)),
    "input scale on the kernel": mutant(before, inputs(along(2))),
    "input not scaled": mutant(before, inputs(lambda w, s, g: w * 1)),
    "input divided": mutant(before, inputs(lambda w, s, g: w / s.reshape(1, -1, 1, 1))),
    "inputs in reverse": mutant(before, inputs(lambda w, s, g: along(1)(w, s.flip(0)))),
    "input scale of the first group": mutant(before_groups, inputs(first_group)),
    "input scales of groups exchanged": mutant(before_groups, inputs(groups_reversed)),
    "input scale on the outputs of groups": mutant(before_groups, inputs(per_output)),
    # the shift of an input in the bias
    "one tap of a shifted input": mutant(before, sums(lambda w, t, g: (w[:, :, 1, 1] * t).sum(1))),
    "one row of a shifted input": mutant(before, sums(lambda w, t, g: (w.sum(3)[:, :, 0] * t).sum(1))),
    "mean of the taps of a shifted input": mutant(before, sums(lambda w, t, g: (w.mean((2, 3)) * t).sum(1))),
    "shifted input summed over the outputs": mutant(before, sums(lambda w, t, g: (w.sum((2, 3)) * t).sum(0))),
    "shift of the outputs": mutant(before, sums(lambda w, t, g: w.sum((1, 2, 3)) * t)),
    "shifted input not multiplied": mutant(before, sums(lambda w, t, g: t * 1)),
    "shift subtracted from the input": mutant(before, sums(lambda w, t, g: -(w.sum((2, 3)) * t).sum(1))),
    "shift of the first group": mutant(before_groups, sums(lambda w, t, g: (w.sum((2, 3)) * t[:2]).sum(1))),
    "shifts of groups exchanged": mutant(
        before_groups, sums(lambda w, t, g: convolution_of(w, t.reshape(2, 2).flip(0).reshape(-1), g))
    ),
    "bias lost by a shifted input": mutant(before, patch(convolution, "total", lambda a, b: b)),
    "shift of the input lost": mutant(before, told(Convolution, "input", unshifted)),
    "shift of the input lost without bias": mutant(before_without_bias, told(Convolution, "input", unshifted)),
    # guards
    "shifted zeros": mutant(padded, never_pads),
    "shifted zeros on one side": mutant(padded_on_one_side, never_pads),
    "shifted zeros of padding named same": mutant(same, never_pads),
    "shifted zeros in core ATen": mutant(core_padded, never_pads),
    "no batch": mutant(unbatched, no_axes, on_axis(1)),
    "no batch, on the input": mutant(unbatched_before, no_axes, on_axis(1)),
    "no batch, transposed": mutant(unbatched_transposed, no_axes, on_axis(1)),
    "places are channels": mutant(another_axis, on_axis(2)),
    "places are channels, on the input": mutant(another_axis_before, on_axis(2)),
    "channels numbered backwards": mutant(conv, told(Convolution, "output", flipped)),
    "channels numbered backwards, on the input": mutant(before, told(Convolution, "input", flipped)),
    # transposed convolutions
    "transposed as if it were not": mutant(transposed, transposed_rows(lambda w, s, g: along(0)(w, s))),
    "transposed, rows of the kernel": mutant(transposed, transposed_rows(lambda w, s, g: along(2)(w, s))),
    "transposed, not scaled": mutant(transposed, transposed_rows(lambda w, s, g: w * 1)),
    "transposed, outputs in reverse": mutant(transposed, transposed_rows(lambda w, s, g: along(1)(w, s.flip(0)))),
    "transposed, groups ignored": mutant(grouped_transposed, transposed_rows(lambda w, s, g: along(1)(w, s[:2]))),
    "transposed, groups as rows": mutant(grouped_transposed, transposed_rows(lambda w, s, g: along(0)(w, s))),
    "transposed, groups of inputs swapped": mutant(grouped_transposed, transposed_rows(swapped_groups)),
    "transposed, groups of outputs swapped": mutant(grouped_transposed, transposed_rows(swapped_outputs)),
    "transposed, input scale on the outputs": mutant(before_transposed, rows(along(1))),
    "transposed, input scale on the kernel": mutant(before_transposed, rows(lambda w, s: w * s[:3])),
    "transposed, shifted input": mutant(shifted_transposed, told(TransposedConvolution, "input", unshifted)),
    "taken for a convolution": mutant(transposed, patch(Convolution, "kinds", frozenset({"conv_transpose2d"}))),
    "a core convolution taken for a transposed one": mutant(
        core_conv,
        patch(Convolution, "takes", lambda *_: False),
        patch(TransposedConvolution, "takes", lambda self, node, constants: "convolution" in str(node.target)),
    ),
    "a core transposed convolution taken for one": mutant(
        core_transposed, patch(Convolution, "takes", lambda self, node, constants: "convolution" in str(node.target))
    ),
    # putting constants in place
    "old weight kept": mutant(conv, installs("bias")),
    "old bias kept": mutant(conv, installs("weight")),
    "nothing put in place": mutant(conv, installs()),
    "old weight kept, on the input": mutant(before, installs("bias")),
    "old bias kept, on the input": mutant(before, installs("weight")),
}

convolution_of = convolution.convolve_constant
