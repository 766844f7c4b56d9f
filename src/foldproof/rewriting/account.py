"""The parts of a rewriter's report that are the same for all: refusals, and verdicts without a proof."""

from __future__ import annotations

from dataclasses import dataclass

from foldproof.claim import IDENTITY
from foldproof.verdict import Kind, Verdict

UNCHANGED = Verdict(Kind.PROVED, "nothing was rewritten, so the program is the same", IDENTITY)

UNPROVED = Verdict(Kind.UNDECIDED, "proofs were switched off (prove=False)")


@dataclass(frozen=True)
class Declined:
    """A normalisation that was left standing, why, and what would change that (where the reason does not say it)."""

    node: str
    operator: str
    source: str | None
    reason: str
    hint: str = ""
