"""Approximation steps: parameters that were rounded to whole numbers, with names and bounds."""

from __future__ import annotations

import torch

from foldproof.proof.attempt import Attempt
from foldproof.proof.floats import Unrounded
from foldproof.proof.obligation import Tensors
from foldproof.shadow import Shadow
from foldproof.shadow.call import value_of
from foldproof.shadow.sample import RoundedParameter
from foldproof.verdict import ApproximationStep


def steps_of(found: Attempt) -> tuple[tuple[ApproximationStep, ...], Unrounded]:
    """Return the steps of an attempt, and the unrounded values in their place.

    The bound of a step comes from the second program's leaf, if there is one; otherwise from the operator's result.
    """
    assert found.runs is not None
    held = found.runs.leaves
    steps, leaves = [], {}
    for step in found.point.steps:
        name = _leaf(held, step)
        if name:
            leaves[name] = step.real / step.scale + step.zero
        bound = step.bound(value_of(held[name]) if name else step.whole)
        steps.append(ApproximationStep(_told(step, name, bound), bound))
    return tuple(steps), Unrounded(leaves, tuple(step.real for step in found.point.steps))


def _leaf(held: Tensors, step: RoundedParameter) -> str | None:
    """Return the leaf of the second program that holds the step's whole numbers."""
    for name, leaf in held.items():
        if isinstance(leaf, Shadow) and not leaf.dtype.is_floating_point and leaf.shape == step.parts[0].shape:
            if all(torch.equal(a, b) for a, b in zip(leaf.residue.parts, step.parts)):
                return name
    return None


def _told(step: RoundedParameter, name: str | None, bound: float) -> str:
    low, high = float(step.scale.abs().min()), float(step.scale.abs().max())
    steps = f"steps of {high:.3g}" if low == high else f"steps of {low:.3g} to {high:.3g}"
    what = name or f"a parameter of shape {tuple(step.real.shape)} ({step.operator.overloadpacket.__name__})"
    return f"{what} is rounded to {steps}{', and cut off' if bound > 0.51 * high else ''}"
