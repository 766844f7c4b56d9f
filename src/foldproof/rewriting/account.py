"""The common parts of rewriters' reports: refusals, and verdicts without a proof."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foldproof.claim import IDENTITY
from foldproof.verdict import Kind, Verdict

UNCHANGED = Verdict(Kind.PROVED, "nothing was rewritten, so the program is the same", IDENTITY)

UNPROVED = Verdict(Kind.UNDECIDED, "proofs were switched off (prove=False)")


@dataclass(frozen=True)
class ProvedRewrite:
    """A rewrite, with the verdict on its region.

    ``nodes`` are all nodes touched, ``result`` is the node that absorbed the others, and ``source`` is ``file:line`` of
    the model's own code.
    """

    rule: str
    nodes: tuple[str, ...]
    result: str
    source: str | None
    verdict: Verdict


NAMED = 4
"""Maximum number of names that stand for several operators."""


@dataclass(frozen=True)
class Declined:
    """A normalisation that was not folded, with the reason and, unless the reason says it, a hint."""

    node: str
    operator: str
    source: str | None
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"not folded: {self.node} ({self.operator}): {self.reason}"


def group_declined(declined: Sequence[Declined]) -> list[list[Declined]]:
    """Group operators whose reasons are the same but for the numbers in names of nodes."""
    groups: dict[tuple[str, str], list[Declined]] = {}
    for one in declined:
        groups.setdefault((re.sub(r"(?<=[a-z])_\d+\b", "", one.reason), one.hint), []).append(one)
    return list(groups.values())


def tell_declined(several: Sequence[Declined]) -> str:
    """Return a line for operators that are declined for one reason, with their number."""
    if len(several) == 1:
        return str(several[0])
    names = ", ".join([*(one.node for one in several[:NAMED]), *(["…"] if len(several) > NAMED else [])])
    return f"not folded: {len(several)} × {several[0].operator} ({names}): {tell_reason(several)}"


def tell_reason(several: Sequence[Declined]) -> str:
    """Return the reason of the first, with a remark if those of the others name other nodes."""
    alike = len({one.reason for one in several}) > 1
    return several[0].reason + " (and so for the others, each with its own nodes)" * alike
