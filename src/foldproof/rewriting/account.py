"""The common parts of rewriters' reports: refusals, and verdicts without a proof."""

from __future__ import annotations

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
