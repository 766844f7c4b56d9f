"""`prove`: two given programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import FoldproofError
from foldproof.layout import clone_apart, laid_out_like
from foldproof.memory import release
from foldproof.program import Leaf, Program, Values, as_program
from foldproof.proof.decide import Strategy, decide_all
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import (
    Derive,
    ProofObligation,
    Sides,
    Tensors,
    equal_content,
    match_leaves,
    require_plain,
)
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.rounding.movement import Movement
from foldproof.shadow import Shadow
from foldproof.verdict import Verdict


def prove(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    derive: Derive | None = None,
    by_value: bool = False,
    strategies: Sequence[Strategy] | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that two programs are the same function; see `foldproof.proving.prove`.

    Without ``derive``, new parameters are constants. ``strategies`` are those of `foldproof.proof.decide`.

    Raises:
        FoldproofError: ``before`` or ``after`` is no program, the inputs do not fit, or integers have no values.
    """
    values = Values()
    first, second = as_program(before, values), as_program(after, values)
    require_plain(first)
    require_plain(second)
    inputs, kwargs = values.inputs((as_inputs(inputs), dict(kwargs or {})))
    samples = sampled_inputs(before, inputs, kwargs, after)
    if len(samples) == 1:
        samples = sampled_inputs(after, inputs, kwargs, before)
    obligations = [
        replace(_obligation(first, second, *sample, derive, by_value), untied=values.overlapping) for sample in samples
    ]
    return decide_all(obligations, seed, progress, strategies)


def _obligation(
    first: Program,
    second: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    derive: Derive | None,
    by_value: bool = False,
) -> ProofObligation:
    # A leaf known to be derived does not match another leaf that happens to have the same content.
    derived = as_computed(derive, first, second.leaves) if derive is not None else frozenset()
    release(leaf.tensor for leaf in first.leaves.values())
    matched, notes = match_leaves(first.leaves, {n: leaf for n, leaf in second.leaves.items() if n not in derived})
    own = {name: leaf for name, leaf in second.leaves.items() if name not in matched}
    fixed = [n for n, leaf in own.items() if n not in derived and not leaf.constant and leaf.tensor.is_floating_point()]

    def sides(leaves: Tensors) -> Sides:
        made: dict[str, Tensor] = {name: leaves[source] for name, source in matched.items()}
        if derive is not None and derived:
            with torch.no_grad():  # some are computed when they are read
                new = derive(leaves)
                made |= {n: holding(own[n].tensor, new[n]) for n in derived}
        made |= {n: clone_apart(leaf.tensor.detach()) for n, leaf in own.items() if n not in made}
        return Sides(second, made, matched)

    unknown = [name for name in fixed if own[name].valueless]
    if unknown:
        raise FoldproofError(
            f"only the second program has {unknown[0]}, which has no values; give it values, or derive, which computes"
            " it from the first program's parameters"
        )
    if any(leaf.valueless for leaf in first.leaves.values()):
        notes.append("parameters without values are variables; runs in floating point use random ones")
    if fixed:
        notes.append(f"only the second program has {', '.join(fixed[:3])}{' …' if len(fixed) > 3 else ''}")
    return ProofObligation(
        first,
        sides,
        args,
        kwargs,
        not fixed,
        computes=bool(derived),
        by_value=by_value,
        derived=tuple(sorted(derived)),
        unmatched=tuple(fixed),
        notes=tuple(notes),
    )


def holding(held: Tensor, derived: Tensor) -> Tensor:
    """Return the residues of ``derived`` with the value that the program holds (rounded, in its dtype and layout)."""
    if derived.shape != held.shape:
        return derived.to(held.dtype)
    value = clone_apart(held.detach())
    if not isinstance(derived, Shadow):
        return laid_out_like(value, derived.to(held.dtype))
    residue = derived.residue
    if derived.stride() != value.stride():  # a view of the parameter has to be one of its residues, too
        residue = residue.view(lambda part: laid_out_like(value, part))
    return Shadow(value, residue)


def as_computed(derive: Derive, first: Program, own: Mapping[str, Leaf]) -> frozenset[str]:
    """Return the names of those parameters of ``derive`` that the second program holds, as they are or rounded.

    One parameter at a time is in float64, if ``derive`` computes its results when they are read.
    """
    with torch.no_grad():
        new = derive(_Wide(first.leaves))
        found = set()
        for name in (name for name in new if name in own):
            value, held = new[name], own[name].tensor
            if not _alike(value, held):
                continue
            exact = not held.is_floating_point() or equal_content(value.to(held.dtype), held)
            if exact or _rounds_to(value, held, _find_movement(derive, first.leaves, name, held.dtype)):
                found.add(name)
    return frozenset(found)


@dataclass(frozen=True)
class _Wide(Mapping[str, Tensor]):
    """Parameters in float64, each when it is read; ``movement`` learns that each moves by up to half an ``epsilon``."""

    leaves: Mapping[str, Leaf]
    epsilon: float = 0.0
    movement: Movement | None = None

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.leaves[name].tensor.detach()
        wide = tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor
        if self.movement is not None and tensor.is_floating_point():
            self.movement.note(wide, wide.abs().nan_to_num(0.0, 0.0, 0.0) * (self.epsilon / 2))
        return wide

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)


def _alike(value: Tensor, held: Tensor) -> bool:
    """True if shapes match and, for whole numbers, contents, too: no whole number is a rounding of another."""
    return value.shape == held.shape and (held.dtype.is_floating_point or equal_content(value, held))


def _find_movement(derive: Derive, leaves: Mapping[str, Leaf], name: str, dtype: torch.dtype) -> Tensor:
    """Return the movement of each element of a derived parameter when its operands are rounded to ``dtype``.

    If terms cancel (a bias less a mean), an earlier rounding of the terms shows in a small result.
    """
    movement = Movement()
    with movement:
        return movement.of(derive(_Wide(leaves, torch.finfo(dtype).eps, movement))[name])


def _rounds_to(value: Tensor, held: Tensor, movement: Tensor) -> bool:
    """True if every element of ``held`` is ``value`` up to four roundings of itself, and one of each operand.

    Folds that are computed in the dtype of the weights take as many.
    """
    info = torch.finfo(held.dtype)
    allowed = 2 * info.eps * value.abs() + movement + 4 * info.smallest_normal * info.eps
    return bool(((held.detach().to(torch.float64) - value).abs() <= allowed).all())
