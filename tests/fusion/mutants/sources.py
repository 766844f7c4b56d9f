"""Affines that are read wrongly from the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from foldproof.fusion import affines
from foldproof.fusion.affine import Affine
from foldproof.fusion.affines import Arithmetic, Match, NormAffine
from foldproof.fusion.examples import Example, chain, functional
from foldproof.graph.nodes import kind_of, set_argument
from foldproof.rewriting.constants import Constants
from mutants.mutant import (
    Mutant,
    Patch,
    Program,
    argument,
    around,
    exported,
    flipped,
    kinds,
    mutant,
    patch,
    turned,
    unscaled,
    unshifted,
)

_linear = partial(nn.Linear, 3, 6)
_vector = partial(torch.randn, 6)

conv = exported(chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 3, 3), partial(nn.BatchNorm2d, 3)))


def _of(function: Any, **parts: Any) -> Any:
    """A program: ``function`` of a linear operator's six features, and of positive (k) and other (b) vectors."""
    return exported(
        functional(
            ((4, 3),),
            lambda m, x: function(m, m.a(x)),
            a=_linear,
            k=lambda: torch.rand(6) + 0.5,
            b=_vector,
            **parts,
        )
    )


scaled = _of(lambda m, y: y * m.k + m.b)
multiplied = _of(lambda m, y: y * m.k)
added = _of(lambda m, y: y + m.b)
divided = _of(lambda m, y: y / m.k)
less_constant = _of(lambda m, y: y - m.b)
from_constant = _of(lambda m, y: m.b - y)
rsub = _of(lambda m, y: torch.rsub(y, m.b, alpha=2))
negative = _of(lambda m, y: -y * m.k)
alpha_of_constant = _of(lambda m, y: torch.add(y, m.b, alpha=3))
alpha_of_data = _of(lambda m, y: torch.add(m.b, y, alpha=3))
sub_alpha = _of(lambda m, y: torch.sub(y, m.b, alpha=3))
addcmul = _of(lambda m, y: torch.addcmul(m.b, y, m.k, value=0.5))
addcmul_to_data = _of(lambda m, y: torch.addcmul(y, m.b, m.k, value=0.5))
floored = _of(lambda m, y: torch.div(y, m.k, rounding_mode="floor"))
divisor = _of(lambda m, y: m.b / y)
read_in_between = _of(lambda m, y: ((z := y * m.k) + m.b, z))
over_two_axes = exported(
    functional(
        ((2, 6, 6),),
        lambda m, x: torch.addcmul(m.b, m.l(x), m.k),
        l=partial(nn.LayerNorm, (6, 6)),
        k=_vector,
        b=partial(torch.randn, 6, 1),
    )
)
through_two_norms = exported(chain((4, 3), _linear, partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm1d, 6)))


_tracked = partial(nn.InstanceNorm2d, 3, affine=True, track_running_stats=True)
instance = exported(chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 3, 3), _tracked))


def _normalised(norm: Callable[[], nn.Module], reader: Callable[[], nn.Module], *shape: int) -> Program:
    """A normalisation of the data with an affine that does something, and what reads it."""

    def make() -> Example:
        model, inputs = chain(shape, norm, reader)()
        with torch.no_grad():
            for parameter in model[0].parameters():
                parameter.normal_()
        return model, inputs

    return exported(make)


layer_norm = _normalised(partial(nn.LayerNorm, 6), partial(nn.Linear, 6, 3), 2, 6, 6)
layer_norm_of_places = _normalised(partial(nn.LayerNorm, 6), partial(nn.Conv1d, 6, 3, 1), 2, 6, 6)
group_norm = _normalised(partial(nn.GroupNorm, 2, 6), partial(nn.Conv1d, 6, 3, 1), 2, 6, 6)
group_norm_of_tokens = _normalised(partial(nn.GroupNorm, 2, 6), partial(nn.Linear, 6, 3), 2, 6, 6)
rms_norm = _normalised(partial(nn.RMSNorm, 6), partial(nn.Linear, 6, 3), 2, 6, 6)


def own(program: Program, *patches: Patch) -> Mutant:
    """Of a normalisation whose affine is only a part of it."""
    return Mutant(program, patches, ("norm_affine",))


def own_read(wrong: Callable[[Affine], Affine]) -> Patch:
    return around(NormAffine, "read", lambda original, *a: replace(step := original(*a), affine=wrong(step.affine)))


def strips(*names: str) -> Patch:
    """Only some of the parameters are taken out."""

    def strip(node: Node) -> None:
        for name in names:
            set_argument(node, name, None)

    return patch(affines, "_remove_affine", strip)


def on_axis(axis: int) -> Callable[[Affine], Affine]:
    def moved(affine: Affine) -> Affine:
        shape = [1] * affine.channels.dim()
        shape[axis] = -1
        return replace(affine, channels=affine.channels.reshape(shape))

    return moved


def scale(wrong: Any) -> Mutant:
    return mutant(conv, patch(affines, "batch_norm_scale", wrong))


def shift(wrong: Any) -> Mutant:
    return mutant(conv, patch(affines, "batch_norm_shift", wrong))


def exchanged(first: str, second: str) -> Patch:
    """Two arguments of every operator that has both are exchanged."""

    def arguments(original: Any, node: Node) -> dict[str, Any]:
        given = original(node)
        if first in given and second in given:
            given[first], given[second] = given[second], given[first]
        return given  # type: ignore[no-any-return]

    return around(affines, "arguments", arguments)


def takes_blindly(self: Arithmetic, node: Node, constants: Constants) -> bool:
    return kind_of(node) in self.kinds and sum(not constants.holds(x) for x in node.all_input_nodes) == 1


def read_affine(wrong: Any) -> Patch:
    return around(affines._Reader, "affine", lambda original, *a: wrong(original(*a)))


def match(wrong: Any) -> Patch:
    return patch(Match, "affine", property(wrong))


def turned_vector(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.expand(shape).transpose(0, -1).reshape(-1)


MUTANTS: dict[str, Mutant] = {
    # batch_norm's scale
    "no eps": scale(lambda w, v, e: w * torch.rsqrt(v)),
    "eps outside the root": scale(lambda w, v, e: w / (torch.sqrt(v) + e)),
    "eps twice": scale(lambda w, v, e: w * torch.rsqrt(v + e + e)),
    "eps subtracted": scale(lambda w, v, e: w * torch.rsqrt(v - e)),
    "eps of torch's default": mutant(conv, argument(affines, eps=1e-5)),
    "no root": scale(lambda w, v, e: w / (v + e)),
    "root, not its inverse": scale(lambda w, v, e: w * torch.sqrt(v + e)),
    "no variance": scale(lambda w, v, e: w * 1),
    "no gamma": scale(lambda w, v, e: torch.rsqrt(v + e)),
    "gamma twice": scale(lambda w, v, e: w * w * torch.rsqrt(v + e)),
    "gamma without sign": scale(lambda w, v, e: w.abs() * torch.rsqrt(v + e)),
    "gamma plus one": scale(lambda w, v, e: (w + 1) * torch.rsqrt(v + e)),
    "channels reversed": scale(lambda w, v, e: (w * torch.rsqrt(v + e)).flip(0)),
    "variance of the next channel": scale(lambda w, v, e: w * torch.rsqrt(v.roll(1) + e)),
    "one scale for all channels": scale(lambda w, v, e: (w * torch.rsqrt(v + e)).mean().expand(3)),
    # its shift
    "mean added": shift(lambda b, m, s: b + m * s),
    "mean not scaled": shift(lambda b, m, s: b - m),
    "no mean": shift(lambda b, m, s: b + 0 * s),
    "no beta": shift(lambda b, m, s: -m * s),
    "beta scaled": shift(lambda b, m, s: (b - m) * s),
    "beta subtracted": shift(lambda b, m, s: -b - m * s),
    "mean divided": shift(lambda b, m, s: b - m / s),
    "shifts of other channels": shift(lambda b, m, s: (b - m * s).flip(0)),
    # its arguments
    "gamma for beta": mutant(conv, exchanged("weight", "bias")),
    "mean for beta": mutant(conv, exchanged("running_mean", "bias")),
    "gamma not given": mutant(conv, argument(affines, weight=None)),
    "beta not given": mutant(conv, argument(affines, bias=None)),
    # instance_norm
    "an instance's mean added": mutant(instance, patch(affines, "batch_norm_shift", lambda b, m, s: b + m * s)),
    "an instance's gamma not given": mutant(instance, argument(affines, weight=None)),
    # arithmetic
    "division multiplies": mutant(divided, patch(affines, "reciprocal", lambda x: x * 1)),
    "reciprocal of the square": mutant(divided, patch(affines, "reciprocal", lambda x: 1 / x.square())),
    "quotient is a difference": mutant(divided, kinds(affines, div="sub")),
    "product is a sum": mutant(multiplied, kinds(affines, mul="add")),
    "product is a quotient": mutant(multiplied, kinds(affines, mul="div")),
    "sum is a product": mutant(added, kinds(affines, add="mul")),
    "sum is a difference": mutant(added, kinds(affines, add="sub")),
    "difference is a sum": mutant(less_constant, kinds(affines, sub="add")),
    "difference turned around": mutant(less_constant, kinds(affines, sub="rsub")),
    "difference from a constant is a sum": mutant(from_constant, kinds(affines, sub="add")),
    "difference from a constant turned around": mutant(from_constant, kinds(affines, sub="rsub")),
    "rsub is sub": mutant(rsub, kinds(affines, rsub="sub")),
    "minus is lost": mutant(negative, around(affines, "number", lambda original, x: original(abs(x)))),
    "minus is lost in a difference": mutant(
        less_constant, around(affines, "number", lambda original, x: original(abs(x)))
    ),
    "alpha of the constant is lost": mutant(alpha_of_constant, argument(affines, alpha=1)),
    "alpha of the data is lost": mutant(alpha_of_data, argument(affines, alpha=1)),
    "alpha of a difference is lost": mutant(sub_alpha, argument(affines, alpha=1)),
    "alpha of a reversed difference is lost": mutant(rsub, argument(affines, alpha=1)),
    "alpha on the other operand": mutant(alpha_of_data, exchanged("self", "other")),
    "alpha on the other operand, too": mutant(alpha_of_constant, exchanged("self", "other")),
    "operands exchanged": mutant(from_constant, exchanged("self", "other")),
    "addcmul's value is lost": mutant(addcmul, argument(affines, value=1)),
    "addcmul's value is lost, of two constants": mutant(addcmul_to_data, argument(affines, value=1)),
    "addcmul's factor is its summand": mutant(addcmul, exchanged("self", "tensor2")),
    "rounding is ignored": mutant(floored, patch(Arithmetic, "takes", takes_blindly)),
    "division by the data": mutant(divisor, patch(Arithmetic, "takes", takes_blindly)),
    "constants spread the wrong way": mutant(over_two_axes, patch(affines, "broadcast", turned_vector)),
    "constants numbered backwards": mutant(scaled, read_affine(flipped)),
    "constants numbered by columns": mutant(over_two_axes, read_affine(turned)),
    "an affine in between is read": mutant(
        read_in_between, around(affines, "value_readers", lambda original, node: original(node)[:1])
    ),
    # affines in a row
    "composed in the wrong order": mutant(
        scaled, match(lambda self: reduce(Affine.then, (step.affine for step in self.steps[::-1])))
    ),
    "only the first of a row": mutant(scaled, match(lambda self: self.steps[0].affine)),
    "only the last of a row": mutant(scaled, match(lambda self: self.steps[-1].affine)),
    "two normalisations taken for one": mutant(through_two_norms, match(lambda self: self.steps[0].affine)),
    "two normalisations exchanged": mutant(
        through_two_norms, match(lambda self: reduce(Affine.then, (step.affine for step in self.steps[::-1])))
    ),
    "the first of a row twice": mutant(
        scaled, match(lambda self: reduce(Affine.then, (step.affine for step in (self.steps[0], *self.steps))))
    ),
    # the affine of a normalisation that stays
    "own beta stays": own(layer_norm, strips("weight")),
    "own gamma stays": own(layer_norm, strips("bias")),
    "own gamma and beta stay": own(group_norm, strips()),
    "own gamma of rms_norm stays": own(rms_norm, strips()),
    "own gamma and beta exchanged": own(layer_norm, exchanged("weight", "bias")),
    "own gamma forgotten": own(layer_norm, own_read(unscaled)),
    "own beta forgotten": own(layer_norm, own_read(unshifted)),
    "own beta of groups forgotten": own(group_norm, own_read(unshifted)),
    "own affine in reverse": own(layer_norm, own_read(flipped)),
    "own affine of groups in reverse": own(group_norm, own_read(flipped)),
    "own affine of places on the channels": own(layer_norm_of_places, own_read(on_axis(1))),
    "own affine of groups on the last axis": own(group_norm_of_tokens, own_read(on_axis(2))),
}
