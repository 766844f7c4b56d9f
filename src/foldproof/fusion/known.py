"""Folds that somebody else made: new parameters that are what `fuse` computes from the old ones, rounded.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.fusion.api import fold_unproved
from foldproof.log import giving_up
from foldproof.program import Leaf, as_program
from foldproof.program.export import export_module
from foldproof.proof import as_computed, match_leaves
from foldproof.proof.decide import Strategy, before_rounding
from foldproof.proof.obligation import Derive
from foldproof.proof.shapes import as_inputs
from foldproof.rewriting.expression import Derived, Expression, as_expression
from foldproof.rewriting.vectors import pad_rows, reshape
from foldproof.verdict import Kind, Verdict

Proved = Callable[[Derive | None, Sequence[Strategy] | None], Verdict]
"""A proof of two programs, with parameters derived if told how, by the strategies that are given, if any."""


def prove_known_folds(
    before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None, proved: Proved
) -> Verdict:
    """Prove two programs, with new parameters read as folds of the first program's where nothing else is a proof."""
    folds = _Folds(lambda: _known_fold(before, after, inputs, kwargs), proved)
    verdict = proved(None, before_rounding(folds.find_proof))
    if verdict.kind is Kind.UNDECIDED:
        verdict = folds.find_proof() or verdict
    if verdict.kind in PROVEN and not folds.prove:
        return verdict
    known, better = folds.known, folds.verdict
    if verdict.kind is Kind.REFUTED or better is None or (not folds.prove and better.kind in (verdict.kind, *PROVEN)):
        return replace(verdict, notes=(*verdict.notes, *known.notes))
    names = sorted(known.expressions)
    told = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}: as a fold of the first program computes them"
    claim = better.claim
    if claim is not None:
        claim = replace(claim.with_parameters_held(), derived=claim.derived)
    return replace(better, claim=claim, notes=(*better.notes, told, *known.notes))


PROVEN = (Kind.PROVED, Kind.PROVED_WITHIN)


class _Folds:
    """Folds that are known, and the verdict with parameters derived by them; each is found when it is asked for."""

    def __init__(self, find: Callable[[], _KnownFold], proved: Proved) -> None:
        self._find, self._proved = find, proved
        self.verdict: Verdict | None = None

    @cached_property
    def known(self) -> _KnownFold:
        with giving_up("looking for a known fold"):
            return self._find()
        return _KnownFold({}, {})

    @property
    def prove(self) -> bool:
        """True if the folds were asked for, and prove the programs equal.

        They don't if rounding a parameter may move an output by a step.
        """
        found = self.verdict
        return found is not None and found.kind in PROVEN and not (found.proof is not None and found.proof.jumping)

    def find_proof(self) -> Verdict | None:
        if self.verdict is None and self.known.expressions:
            self.verdict = self._proved(lambda parameters: Derived(self.known.expressions, parameters), None)
        return self.verdict if self.prove else None


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
    if isinstance(before, fx.GraphModule) and not all("val" in x.meta for x in before.graph.nodes if x.op != "output"):
        before = export_module(before, as_inputs(inputs), dict(kwargs or {}))
    numbers = _numbers(before) if isinstance(before, ExportedProgram) else {}
    folds = (e.substitute(numbers) for e in fold_unproved(before, inputs, kwargs))
    # A parameter in another shape is the same; one of fewer digits is not.
    itself = [as_expression(name) for name, leaf in first.items() if _is_number(leaf)]
    computed = [*itself, *(e for e in folds if set(e.reads()) <= first.keys())]
    values = Derived({str(i): e for i, e in enumerate(computed)}, {name: leaf.tensor for name, leaf in first.items()})
    near: dict[str, Expression] = {}
    distances: dict[str, float] = {}
    for i, expression in enumerate(computed):
        for name, held in new.items():
            shaped = _shaped_like(held, expression, values[str(i)])
            if shaped is None:
                continue
            distance, size = _distance(held, shaped[1])
            reach = 0.0 if i < len(itself) else _NEAR * size
            if distance <= reach and distance < distances.get(name, math.inf):
                near[name], distances[name] = shaped[0], distance
    right = as_computed(lambda parameters: Derived(near, parameters), program, second)
    return _KnownFold(
        {name: near[name] for name in near if name in right}, {n: d for n, d in distances.items() if n not in right}
    )


def _numbers(program: ExportedProgram) -> dict[str, Expression]:
    """Return the constants of one element, which are no parameters, by name."""
    return {
        name: Expression(_Number(x.item(), tuple(x.shape), x.dtype), ())
        for name, x in program.constants.items()
        if isinstance(x, Tensor) and x.numel() == 1 and x.dtype in _NUMBERS
    }


_NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64}
"""Dtypes of constants; whole numbers are computed with as such."""


@dataclass(frozen=True)
class _Number:
    """A constant of one element, of its own dtype beside shadows, and in float64 for values."""

    value: float
    shape: tuple[int, ...]
    dtype: torch.dtype
    may_narrow: ClassVar[bool] = True

    def __call__(self) -> Tensor:
        return torch.full(self.shape, self.value, dtype=self.dtype)


_NEAR = 0.01
"""Largest distance of a parameter from a fold that it is compared with, relative to the largest element."""


def _distance(held: Tensor, value: Tensor) -> tuple[float, float]:
    """Return the largest distance of two tensors and the size of ``value``."""
    return float((held.detach().double() - value).abs().max()), float(value.abs().max())


def _shaped_like(held: Tensor, expression: Expression, value: Tensor) -> tuple[Expression, Tensor] | None:
    """Return an expression and its value in the shape of a parameter; None if it has another number of elements.

    Some runtimes split an axis into groups, or pad channels with rows of zeros.
    """
    missing = len(_long(held)) - len(_long(value)) if held.dim() and value.dim() else 0
    if missing > 0 and _long(held).shape[1:] == _long(value).shape[1:] and not bool(_long(held)[-missing:].any()):
        expression, value = Expression(pad_rows, (expression, missing)), pad_rows(value, missing)
    if not value.numel() or value.numel() != held.numel():
        return None
    shape = tuple(held.shape)
    return (expression if value.shape == shape else Expression(reshape, (expression, shape))), value.reshape(shape)


def _long(tensor: Tensor) -> Tensor:
    """Return a tensor without axes of size 1."""
    return tensor.detach().reshape([n for n in tensor.shape if n != 1] or [1])


def _is_number(leaf: Leaf) -> bool:
    return leaf.tensor.is_floating_point() and not leaf.valueless
