"""The floating-point half: evaluate both programs in float64, and look for a witness of a real difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.program import Program
from foldproof.proof.question import Question, Tensors, copied, tied
from foldproof.proof.residues import run_copied
from foldproof.rounding import Comparison, Float64, compare_in_float64
from foldproof.rounding.spread import perturbed
from foldproof.rounding.truth import widened

EXPLAINED = 32.0
"""Differences up to this many times what rounding the leaves moves the outputs by count as rounding."""
REAL = 1024.0
"""From here on a difference is a witness; in between nothing is said."""


@dataclass(frozen=True)
class Trial:
    """One evaluation of both programs: where, and what came out."""

    description: str
    comparison: Comparison
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    leaves: Tensors
    outputs: tuple[Tensor, ...]
    shapes: str | None = None
    elsewhere: bool = False
    """At other parameters than the program's own."""

    @property
    def differs(self) -> bool:
        return self.shapes is not None or self.comparison.ratio >= REAL


def _run(program: Program, which: str, leaves: Tensors, args: Any, kwargs: Any) -> list[Tensor]:
    """Outputs and effects of a float64 run, as float64 tensors (integers and booleans too)."""
    wide = {id(t): widened(copied(t)) for t in leaves.values()}  # tied ones stay tied
    given = {name: wide[id(t)] for name, t in leaves.items()}
    wide_args, wide_kwargs = tree_map(widened, copied((args, dict(kwargs))))
    with torch.no_grad(), Float64():  # type: ignore[no-untyped-call]
        outcome = run_copied(program, which, given, wide_args, wide_kwargs)
    results = [*outcome.outputs, *(outcome.effects[name] for name in sorted(outcome.effects))]
    return [torch.as_tensor(r).to(torch.float64) for r in results if isinstance(r, (Tensor, int, float, bool))]


def evaluate(
    question: Question, description: str, leaves: Tensors, args: tuple[Any, ...], kwargs: Mapping[str, Any], floor: bool
) -> Trial:
    """Evaluate both programs on these leaves and inputs; measure the rounding floor if asked for."""
    side = question.after(copied(dict(leaves)))
    before = _run(question.before, "first", leaves, args, kwargs)
    after = _run(side.after, "second", side.leaves, args, kwargs)
    shapes = None
    if [t.shape for t in before] != [t.shape for t in after]:
        shapes = f"shapes {[tuple(t.shape) for t in before]} before, {[tuple(t.shape) for t in after]} after"
        return Trial(description, Comparison(0, (), 0, 0, 0, 0, 0), args, kwargs, leaves, tuple(before), shapes)

    def perturb(i: int) -> Sequence[Tensor]:
        generator = torch.Generator().manual_seed(i)

        def noisy(x: Any) -> Any:
            return perturbed(widened(x), x.dtype, generator) if isinstance(x, Tensor) else x

        moved_once = {id(t): noisy(t) for t in leaves.values()}  # tied ones move together
        moved = {name: moved_once[id(t)] for name, t in leaves.items()}
        moved_args, moved_kwargs = tree_map(noisy, (args, dict(kwargs)))
        return _run(question.before, "first", moved, moved_args, moved_kwargs)

    comparison = compare_in_float64(before, after, perturb if floor else None)
    return Trial(description, comparison, args, kwargs, leaves, tuple(before))


def own_leaves(question: Question) -> dict[str, Tensor]:
    return tied(question.before.leaves, lambda name, leaf: leaf.tensor.detach())


def trials(question: Question) -> Iterator[Trial]:
    """Evaluations at the program's own parameters and, where the question allows it, at others."""
    leaves, args, kwargs = own_leaves(question), question.args, question.kwargs
    yield evaluate(question, "the given inputs and parameters", leaves, args, kwargs, True)
    generator = torch.Generator().manual_seed(0)
    random_args, random_kwargs = tree_map(lambda x: _redrawn_input(x, generator), (args, dict(kwargs)))
    if any(_is_float(x) for x in tree_leaves((args, dict(kwargs)))):  # tokens can't be redrawn
        yield evaluate(question, "random inputs, the given parameters", leaves, random_args, random_kwargs, True)
    if not question.general or not leaves:
        return
    # The last one makes variances tiny, which brings out what is done to an epsilon.
    for spread, shrink in ((1.0, 1.0), (4.0, 1.0), (1.0, 1e-5)):
        drawn = _redrawn_leaves(question, generator, spread, shrink)
        trial = evaluate(question, "random inputs and parameters", drawn, random_args, random_kwargs, True)
        yield replace(trial, elsewhere=True)


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point


def _redrawn_input(x: Any, generator: torch.Generator) -> Any:
    if not _is_float(x):
        return x
    scale = float(x.double().square().mean().sqrt()) if x.numel() else 1.0
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64) * (scale or 1.0)
    return drawn.to(x.dtype).to(x.device)


def _redrawn_leaves(question: Question, generator: torch.Generator, spread: float, shrink: float) -> dict[str, Tensor]:
    """Other parameters: noise added; where none is negative (variances), log-normal factors times ``shrink``."""
    made: dict[int, Tensor] = {}
    out = {}
    for name, leaf in question.before.leaves.items():
        x = leaf.tensor.detach()
        if x.data_ptr() not in made or not x.numel():
            fixed = leaf.constant or not x.dtype.is_floating_point
            made[x.data_ptr()] = x if fixed else _redrawn(x, generator, spread, shrink)
        drawn = made[x.data_ptr()]
        out[name] = drawn if drawn.shape == x.shape else x
    return out


def _redrawn(x: Tensor, generator: torch.Generator, spread: float, shrink: float) -> Tensor:
    old = x.to(device="cpu", dtype=torch.float64)
    factor = torch.exp(spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(1e-6, 1e3)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    scale = (float(old.square().mean().sqrt()) if x.numel() else 0.0) or 0.1
    positive = bool((old >= 0).all()) and bool((old > 0).any())
    new = (old + 1e-3 * scale) * factor * shrink if positive else old + scale * noise
    return new.to(x.dtype).to(x.device)


def insensitive(first: Trial, second: Trial) -> bool:
    """Whether the outputs hardly depend on the inputs, so that comparing outputs says little of what lies before."""
    for a, b in zip(first.outputs, second.outputs):
        if a.numel() and float((a - b).abs().max()) > 1e-6 * float(a.abs().max()):
            return False
    return any(a.numel() for a in first.outputs)
