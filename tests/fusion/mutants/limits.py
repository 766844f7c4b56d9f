"""Clamps that get wrong limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foldproof.fusion import examples
from foldproof.fusion.motion import limits as rule
from mutants.mutant import Mutant, Patch, Program, around, decomposed, exported, mutant, unscaled, unshifted

Limit = float | None


def _example(name: str) -> Program:
    [one] = [e for e in examples.limits_fires if e.name == name]
    return exported(one.make)


hard = _example("hardtanh")
core_hard = decomposed(hard)
line = _example("a clamp of a linear")
core_line = decomposed(line)
negative = _example("a negative number")
one_sided = _example("a negative number, and one limit")
shifted = _example("a shift")


def installed(wrong: Callable[[Limit, Limit], tuple[Limit, Limit]]) -> Patch:
    """Other limits are set."""
    return around(rule, "_install", lambda original, low, high, *a: original(*wrong(low, high), *a))


def read(wrong: Callable[[Any], Any]) -> Patch:
    """Other limits are read."""
    return around(rule, "_read", lambda original, node: (found := original(node)) and wrong(found))


def demanded(wrong: Callable[[Any], Any]) -> Patch:
    """The operand is demanded otherwise."""

    def up(original: Any, *a: Any) -> Any:
        demands, edit = original(*a)
        return {x: wrong(affine) for x, affine in demands.items()}, edit

    return around(rule.Limits, "up", up)


def half(low: Limit, high: Limit) -> tuple[Limit, Limit]:
    return low, None if high is None else high / 2


MUTANTS: dict[str, Mutant] = {
    "half of the limit above": mutant(hard, installed(half)),
    "half of the limit above, in core ATen": mutant(core_hard, installed(half)),
    "half of the limit above, of a linear": mutant(line, installed(half)),
    "half of the limit above, of a linear in core ATen": mutant(core_line, installed(half)),
    "no limit above": mutant(hard, installed(lambda low, high: (low, None))),
    "no limit below": mutant(hard, installed(lambda low, high: (-1e9, high))),
    "limits exchanged": mutant(negative, installed(lambda low, high: (high, low))),
    "a limit on the other side": mutant(one_sided, installed(lambda low, high: (high, low))),
    "a limit above 0 instead of one below": mutant(shifted, installed(lambda low, high: (high, low))),
    "relu without a limit": mutant(shifted, read(lambda found: (-1e9, None))),
    "a hardtanh without a limit above": mutant(hard, read(lambda found: (found[0], None))),
    "the limits of the value before": mutant(hard, read(lambda found: tuple(x / 4 for x in found))),
    "limits without the shift": mutant(line, read(lambda found: tuple(x - 0.5 for x in found))),
    "the operand is not scaled": mutant(hard, demanded(unscaled)),
    "the operand is not scaled, in core ATen": mutant(core_line, demanded(unscaled)),
    "the operand is not shifted": mutant(shifted, demanded(unshifted)),
}
