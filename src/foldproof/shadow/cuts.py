"""Cut points: places where two programs read the identity as an uninterpreted function.

Why
---
The chance that different programs agree at a sample point grows with the degree of the compared polynomials. Each gated
or attention layer raises the degree, so that a deep model needs many primes, or more than there are. An uninterpreted
function starts again at degree 1. The internal equivalence points of hardware equivalence checking (Kuehlmann and
Krohm, 1997) serve the same purpose.

Claim and soundness
-------------------
The identity is replaced by uninterpreted functions φ1, φ2, … at some places of both programs. If the programs agree for
every choice of these functions, they agree for the identity. This holds whatever the places are. That they correspond
is needed for success only: at places that do not correspond, equal programs disagree, and nothing is proved.

A place is the position of a value in the sequence of values that a program computes. Places are chosen from a
`Recording`, a run of both programs at an earlier sample point. Values with the same digest in both programs form a
*group*, which shares one function. A program may compute a value of a group several times.

At the sample point of the proof, two facts decide whether a group is cut. The first is the size of its polynomials at
its first place, a bound that follows from the operators. The second is whether a value is the result of the group's own
function already, as that of ``clone`` is. Only the second reads residues: the test compares sums over all elements
modulo each prime. Formally different values pass it with no more than the chance of one comparison at the end of a
proof, and a wrong answer leaves a place uncut, which changes no program over the real numbers.

A place is read as φ(x) - φ(0), which is the identity where φ is. So it keeps zeros, and digests leave them out: a value
and a copy of it with channels of padding are in the same group.

The result of a cut counts as data, so that a divisor with a cut in it is never inverted exactly: a difference that is 0
may not be 0 for other functions in place of the identity.

Elements keep their order within a tensor, and digests do not depend on it, so that a transposed copy is in the same
group. Infinite elements have no residues, so that values with some of them are never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from foldproof.field import mix
from foldproof.shadow.ondemand import OnDemand
from foldproof.shadow.residue import Residue, apply_uninterpreted, embed_number
from foldproof.thresholds import MAX_UNCUT_BITS, MAX_UNCUT_DEGREE

Visit = Callable[[Residue], Residue]
"""A function that is called with each computed value of a program, in order, and returns its replacement."""


class Visits(NamedTuple):
    """The functions that see the values of either program."""

    first: Visit
    second: Visit


class Recording:
    """Digests of the values of both programs, by place."""

    def __init__(self) -> None:
        self._digests: tuple[list[Digest | None], list[Digest | None]] = ([], [])

    @property
    def visits(self) -> Visits:
        first, second = (self._record_in(found) for found in self._digests)
        return Visits(first, second)

    def _record_in(self, found: list[Digest | None]) -> Visit:
        def record(residue: Residue) -> Residue:
            found.append(_digest(residue) if _may_be_cut(residue) else None)
            return residue

        return record

    def groups(self) -> tuple[Mapping[int, int], Mapping[int, int]]:
        """Return the groups of both programs, by place."""
        first, second = self._digests
        common = {digest: i for i, digest in enumerate(dict.fromkeys(first)) if digest is not None}
        common = {digest: common[digest] for digest in common.keys() & {*second}}
        place = [{i: common[d] for i, d in enumerate(found) if d in common} for found in (first, second)]
        return place[0], place[1]


class Cuts:
    """Cut points of one sample point: ``groups`` of both programs, by place."""

    def __init__(self, groups: Sequence[Mapping[int, int]]) -> None:
        self._groups = groups
        self._is_cut: dict[int, bool] = {}
        self._results: dict[int, list[int]] = {}

    @property
    def visits(self) -> Visits:
        return Visits(self._cut_in(0), self._cut_in(1))

    @property
    def made(self) -> int:
        """Number of groups that were cut."""
        return sum(self._is_cut.values())

    def _cut_in(self, program: int) -> Visit:
        place = -1

        def cut(residue: Residue) -> Residue:
            nonlocal place
            place += 1
            group = self._groups[program].get(place)
            if group is None or not _may_be_cut(residue):
                return residue
            if not self._is_cut.setdefault(group, program == 0 and _is_large(residue)):
                return residue
            if group in self._results:
                residue.point.tests += 1
                if self._results[group] == _sums(residue):
                    return residue
            out = _apply(f"identity(#{group})", residue)
            self._results.setdefault(group, _sums(out))
            return out

        return cut


Digest = tuple[int, int]


def _may_be_cut(residue: Residue) -> bool:
    return residue.varies and not residue.infinite and not isinstance(residue.parts, OnDemand) and residue.numel() > 0


def _is_large(residue: Residue) -> bool:
    degree, bits = residue.size.difference
    return degree > MAX_UNCUT_DEGREE or bits * residue.point.extension > MAX_UNCUT_BITS


def _apply(name: str, residue: Residue) -> Residue:
    """Return φ(x) - φ(0), where φ is the uninterpreted function ``name``."""
    moved, zero = (apply_uninterpreted(name, [x], lambda x: x) for x in (residue, embed_number(residue.point, 0)))
    return moved - zero


def _digest(residue: Residue) -> Digest:
    """Return a fingerprint of the elements other than 0, without their order, and their number."""
    some = residue.parts[0] != 0  # other elements may be 0 modulo one prime, in both programs alike
    words = torch.zeros(residue.shape, dtype=torch.int64, device=some.device)
    for part in residue.parts:
        words = mix(words + part.to(torch.int64))
    return int((words * some).sum()), int(some.sum())


def _sums(residue: Residue) -> list[int]:
    """Return the sum of all elements modulo each prime."""
    return [int(field.canonical(part.sum())) for field, part in zip(residue.point.fields, residue.parts)]
