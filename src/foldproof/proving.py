"""The public function `prove`: two given programs, and the arithmetic of folds that somebody else made.

A program whose parameters were folded by hand, or by another tool, holds new numbers. Read as constants, these can
only be compared: rounding them leaves ROUNDING at best. Where they are what foldproof's own fold computes from the
first program's parameters, rounded, they are derived parameters, and the programs are proved equal for all inputs.

It is sound because nothing is taken from the fold but its arithmetic: the programs are proved equal with the new
parameters computed by it, and `foldproof.proof` checks that the second program holds the results, up to rounding. That
is seen at the present values. Another arithmetic may give the same ones, as a fold that forgets a shift of 0 does. So
the claim is for these parameter values, and a claim for all takes ``derive``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.fusion import fold_unproved
from foldproof.log import giving_up
from foldproof.porting import prove_port
from foldproof.porting.conversion import Convert
from foldproof.program import Leaf, as_program
from foldproof.program.gradients import tell_unseen_gradients
from foldproof.proof import as_computed, match_leaves
from foldproof.proof import prove as prove_programs
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import Derive
from foldproof.rewriting.expression import Derived, Expression
from foldproof.rewriting.vectors import reshape
from foldproof.verdict import Kind, Verdict


def prove(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    derive: Derive | None = None,
    convert: Convert | None = None,
    inverse: Convert | None = None,
    by_value: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that two programs are the same function.

    Args:
        before: the first program: an nn.Module, GraphModule, ExportedProgram, or callable.
        after: the second program.
        inputs: example positional arguments of both. Floating-point tensors stand for all tensors of their shape;
            integers, booleans and everything else are held at their values.
        kwargs: example keyword arguments.
        derive: the arithmetic of *after*'s new parameters: a function from *before*'s parameters by name (tensors, or
            shadows of them) to new ones by *after*'s names. With it a fold is proved for all parameters. Without it,
            new parameters that foldproof's own folds compute are recognised, and the proof is for these values; others
            are constants, and rounding them leaves ROUNDING at best.
        convert: the conversion of checkpoints, if *after* is a port of *before*: a function from *before*'s state dict
            to *after*'s, which may change it in place, or a function of the port and *before*'s state dict, which loads
            it. It runs unmodified, so that the proof is for every checkpoint; *after*'s own values do not matter.
        inverse: the conversion back, a function from *after*'s state dict to *before*'s. With it, the round trip of
            every checkpoint is proved or refuted, too.
        by_value: let piecewise activations (relu, leaky_relu, elu, prelu …) follow their values if nothing else
            proves the programs equal. The verdict then names them among the operators with only the visited branch.
        seed: fixes the random draw, to reproduce a run.
        progress: called with (done, total, what).

    Programs exported with dynamic shapes are compared at several sizes, which the verdict names.

    With ``convert``, a program is an nn.Module, or a function that reads one module from outside, as an adapter does:
    ``lambda tokens: model(input_ids=tokens).logits``. Buffers that are not part of the checkpoint are held.

    Without it, parameters and buffers of *after* that are the same tensor as one of *before*, or equal in name and
    content, are the same variable of the claim. Those on the meta device, and fake tensors, are variables without
    values: runs in floating point use random ones, and those of equal name and shape are the same.

    Raises:
        FoldproofError: ``before`` or ``after`` is no program, the inputs do not fit, or integers have no values.
    """

    if convert is not None and derive is not None:
        raise FoldproofError("give convert for a port, or derive for folded parameters, not both")
    if convert is not None:
        return prove_port(before, after, inputs, kwargs, convert, inverse, by_value, seed, progress)
    if inverse is not None:
        raise FoldproofError("an inverse conversion takes the conversion, too; give convert")
    verdict = prove_with_folds(before, after, inputs, kwargs, derive, by_value, seed, progress)
    return replace(verdict, notes=(*verdict.notes, *tell_unseen_gradients(before, (inputs, kwargs))))


def prove_with_folds(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    derive: Derive | None,
    by_value: bool,
    seed: int | None,
    progress: Progress | None,
) -> Verdict:
    """Prove as `prove`, without a word on gradients."""

    def proved(how: Derive | None) -> Verdict:
        return prove_programs(
            before, after, inputs, kwargs, derive=how, by_value=by_value, seed=seed, progress=progress
        )

    verdict = proved(derive)
    if derive is not None or verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN):
        return verdict
    known = _KnownFold({}, {})
    with giving_up("looking for a known fold"):
        known = _known_fold(before, after, inputs, kwargs)
    if not known.expressions or verdict.kind is Kind.REFUTED:
        return replace(verdict, notes=(*verdict.notes, *known.notes))
    better = proved(lambda parameters: Derived(known.expressions, parameters))
    jumps = better.proof is not None and better.proof.jumping  # rounding a parameter may move an output by a step
    if better.kind is verdict.kind or jumps:
        return replace(verdict, notes=(*verdict.notes, *known.notes))
    names = sorted(known.expressions)
    told = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}: as a fold of the first program computes them"
    claim = better.claim
    if claim is not None:
        claim = replace(claim.with_parameters_held(), derived=claim.derived)
    return replace(better, claim=claim, notes=(*better.notes, told, *known.notes))


@dataclass(frozen=True)
class _KnownFold:
    """Expressions of new parameters that hold their values, rounded; and how far others are ``off``, at most."""

    expressions: Mapping[str, Expression]
    off: Mapping[str, float]

    @property
    def notes(self) -> list[str]:
        """The others in words."""
        return [
            f"{name} is near to a fold of the first program's parameters, but {distance:.2g} away from it"
            for name, distance in sorted(self.off.items())
        ]


def _known_fold(before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None) -> _KnownFold:
    """Find the expressions of *after*'s new parameters over *before*'s among those that `fuse` computes."""
    if not isinstance(before, (nn.Module, ExportedProgram)):
        return _KnownFold({}, {})
    program = as_program(before)
    first, second = program.leaves, as_program(after).leaves
    matched, _ = match_leaves(first, second)
    new = {name: leaf.tensor for name, leaf in second.items() if name not in matched and _is_number(leaf)}
    if not new or any(leaf.valueless for leaf in first.values()):
        return _KnownFold({}, {})
    computed = [e for e in fold_unproved(before, inputs, kwargs) if set(e.reads()) <= first.keys()]
    values = Derived({str(i): e for i, e in enumerate(computed)}, {name: leaf.tensor for name, leaf in first.items()})
    near: dict[str, Expression] = {}
    distances: dict[str, float] = {}
    for i, expression in enumerate(computed):
        value = values[str(i)]
        for name, held in new.items():
            distance, size = _distance(held, value)
            if distance <= _NEAR * size and distance < distances.get(name, math.inf):
                near[name], distances[name] = _shaped(expression, value, held), distance
    right = as_computed(lambda parameters: Derived(near, parameters), program, second)
    return _KnownFold(
        {name: near[name] for name in near if name in right}, {n: d for n, d in distances.items() if n not in right}
    )


_NEAR = 0.01
"""Largest distance of a parameter from a fold that it is compared with, relative to the largest element."""


def _distance(held: Tensor, value: Tensor) -> tuple[float, float]:
    """Return the largest distance of two tensors and the size of ``value``; of other shapes, an infinite distance.

    Axes of size 1 make no other shape.
    """
    if _long_axes(value) != _long_axes(held) or not value.numel():
        return math.inf, 0.0
    return float((held.detach().double() - value.reshape(held.shape)).abs().max()), float(value.abs().max())


def _long_axes(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _shaped(expression: Expression, value: Tensor, held: Tensor) -> Expression:
    return expression if value.shape == held.shape else Expression(reshape, (expression, tuple(held.shape)))


def _is_number(leaf: Leaf) -> bool:
    return leaf.tensor.is_floating_point() and not leaf.valueless
