"""Facts that equal values share, whatever operators made them.

Facts lead to normal forms: the exponential of a value that is known to be a sum is a product. Two programs compute one
value by different operators, and know different facts about it: leaky_relu(x) has pieces, max(x, x/8) a linear form
besides. Without more, their exponentials would differ. So each value takes the facts of the first value with the same
residues, in whichever program that is. Facts of one program then name values of the other, so that values with the same
residues have a common label, by which they are found to be the same.

Soundness
---------
Facts are identities of a value as a function of the inputs. Values with equal residues at a random sample point are one
function, but for the chance of an error that is the same as in a comparison of results; each lookup counts as one test
for each value that it is compared with (`SamplePoint.tests`). A value keeps its own flag of elements that may be nan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foldproof.digest import digest
from foldproof.shadow.known import Known, Origin, facts, hold
from foldproof.shadow.ondemand import OnDemand
from foldproof.thresholds import MAX_SHARED_ELEMENTS

Residue = Any
"""A `foldproof.shadow.residue.Residue`, which imports this module."""


class SharedFacts:
    """The facts about the values of one sample point, by residues."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Known, Origin | None]] = {}
        self._elements = 0

    def share(self, residue: Residue) -> None:
        """Label a new value, and give it the facts of the first value with the same residues, or record its own."""
        if isinstance(residue.parts, OnDemand) or not residue.is_algebraic:
            return
        key = f"{tuple(residue.shape)} {digest(residue.parts)}"
        residue.label = key, residue.cell.writes
        residue.point.tests += len(self._found)
        if key in self._found:
            known, origin = self._found[key]
            if hold(known):
                residue.known = replace(known, writes=residue.cell.writes)
            if origin is not None and all(term.valid for term in origin.operands):
                residue.origin = replace(origin, writes=residue.cell.writes)
        elif self._elements + residue.numel() <= MAX_SHARED_ELEMENTS:
            self._elements += residue.numel()
            self._found[key] = facts(residue), residue.origin
