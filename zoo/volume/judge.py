"""Judging the verdicts of `foldproof.prove` on pairs: errors, and the truth that they are measured by."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

import foldproof
from foldproof.verdict import Kind, Verdict
from zoo.volume.pairs import Distance, Pair, distance, make_pair, operators

MIN_CHANGE = 1e-12
"""Programs that are nearer in float64, at all inputs that are tried, count as not changed, and are not judged."""
MAX_EQUAL = 1e-9
"""Two rewrites of one function are as near in float64 as this, or the generator has a fault."""
MAX_ROUNDING = 1e-3
"""A change that moves an output by more than this part of the outputs' size is not to be called rounding."""

ERRORS = ("wrong PROVED", "wrong ROUNDING", "false REFUTED", "exception")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Group:
    """One line of the table: a dtype, equal or changed, and with written buffers or not."""

    dtype: torch.dtype
    changed: bool
    stateful: bool

    def __str__(self) -> str:
        words = "changed" if self.changed else "equal"
        return f"{str(self.dtype).removeprefix('torch.')}, {words}, {'two calls' if self.stateful else 'one call'}"


GROUPS = tuple(Group(dtype, changed, state) for dtype in DTYPES for changed in (False, True) for state in (False, True))


@dataclass(frozen=True)
class Judged:
    """A pair with its verdict.

    Attributes:
        group: the group of the pair, and its ``seed`` there.
        names: the blocks; ``changed`` is the number of the changed one.
        kind: the verdict, with its ``reason`` and its ``claim`` in words.
        limited: whether the claim names choices, held values or the like, so that it is not for all values.
        distance: the truth.
        error: the error, if the verdict is one.
        operators: the ATen operators that the two programs call.
        seconds: the processor time that the verdict took.
    """

    group: Group
    seed: int
    names: tuple[str, ...]
    changed: int | None
    kind: Kind
    reason: str
    claim: str
    limited: bool
    distance: Distance
    error: str | None
    operators: frozenset[str]
    seconds: float


def judge(group: Group, seed: int) -> Judged | None:
    """Prove one pair, and judge the verdict; None for a change that changes nothing.

    Raises:
        AssertionError: programs that the generator takes for equal are not.
    """
    pair = make_pair(seed, group.dtype, group.changed, group.stateful)
    truth = distance(pair)
    if group.changed and truth.largest <= MIN_CHANGE:
        return None
    if not group.changed and truth.ordinary > MAX_EQUAL:
        raise AssertionError(
            f"{group}, seed {seed}: {pair.names} are {truth.ordinary:.3g} apart, and meant to be equal"
        )
    start = time.process_time()
    try:
        verdict = foldproof.prove(pair.before, pair.after, pair.inputs)
        error = error_of(pair, verdict, truth)
    except Exception as raised:  # one that is raised costs no verdicts of other pairs
        verdict, error = Verdict(Kind.UNDECIDED, f"{type(raised).__name__}: {raised}"), "exception"
    seconds = time.process_time() - start
    return Judged(
        group,
        seed,
        pair.names,
        pair.changed,
        verdict.kind,
        verdict.reason,
        str(verdict.claim or ""),
        verdict.claim is not None and not verdict.claim.is_general,
        truth,
        error,
        frozenset(operators(pair)),
        seconds,
    )


def error_of(pair: Pair, verdict: Verdict, truth: Distance) -> str | None:
    """The error in a verdict, one of `ERRORS`, or None.

    A proof that is limited is wrong where the programs differ at the given inputs: the values that it holds are those,
    and so are the choices that it follows.
    """
    if pair.changed is None:
        return "false REFUTED" if verdict.kind is Kind.REFUTED else None
    if verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN):
        general = verdict.claim is not None and verdict.claim.is_general
        bound = max((step.bound for step in verdict.steps), default=0.0)
        if (truth.largest if general else truth.given) > max(MIN_CHANGE, bound):
            return "wrong PROVED"
    if verdict.kind is Kind.ROUNDING and truth.ordinary > MAX_ROUNDING:
        return "wrong ROUNDING"
    return None
