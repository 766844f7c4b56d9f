"""One call of a pass, and its verdict."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from foldproof.auditing.decomposition import find_wrong_decomposition
from foldproof.auditing.judge import judge
from foldproof.auditing.log import Change
from foldproof.auditing.loops import Loop, find_loop
from foldproof.auditing.movement import Movement, measure_movement
from foldproof.log import giving_up
from foldproof.verdict import Kind, Verdict


class Step:
    """One call of a pass. Its verdict is computed on first access."""

    def __init__(self, change: Change, given: Sequence[Any]) -> None:
        self.change = change
        self._given = given

    @property
    def name(self) -> str:
        """Name of the pass; "unobserved (…)" for a change between two passes."""
        return self.change.name or f"unobserved ({self.change.note})"

    @property
    def part(self) -> str:
        """The half of a joint graph that it changes, "forward" or "backward", or the part that control flow runs."""
        return self.change.part

    @property
    def title(self) -> str:
        """Name of the pass, with the half or part."""
        return f"{self.name}, {self.part}" if self.part else self.name

    @property
    def phase(self) -> str:
        """Enclosing calls, outermost first."""
        return self.change.phase

    @property
    def fired(self) -> bool:
        """True if the graph changed."""
        return self.change.fired

    @property
    def nodes(self) -> tuple[int, int]:
        """Number of nodes before and after."""
        return self.change.before.size, self.change.after.size

    @property
    def before(self) -> fx.GraphModule:
        return self.change.before.module

    @property
    def after(self) -> fx.GraphModule:
        return self.change.after.module

    @functools.cached_property
    def verdict(self) -> Verdict:
        verdict = judge(self.change, self._given)
        if verdict.kind is Kind.UNDECIDED and self.movement is not None:
            verdict = replace(verdict, notes=(*verdict.notes, str(self.movement)))
        loop = find_loop(self.change.after.graph, verdict) if verdict.kind is Kind.REFUTED else None
        return verdict if loop is None else replace(verdict, notes=(*verdict.notes, loop.describe()))

    @functools.cached_property
    def movement(self) -> Movement | None:
        """Movement of the numbers at the given inputs; None if the graphs can't be run, or draw numbers."""
        return measure_movement(self.change, self._given)

    @functools.cached_property
    def decomposition(self) -> str:
        """The operators that AOTAutograd takes apart wrongly, if it is wrong and they are known."""
        moves = self.movement is not None and not self.movement.explained
        return find_wrong_decomposition(self.change, self._given) if self.name == "AOTAutograd" and moves else ""

    @functools.cached_property
    def cause(self) -> str:
        """The parts of the pass that make its result wrong, if it is REFUTED and they are known."""
        if self.change.find_cause is None or self.verdict.kind is not Kind.REFUTED:
            return ""
        with giving_up(f"looking for the cause in {self.name}"):
            return self.change.find_cause(lambda change: judge(change, self._given).kind is Kind.REFUTED)
        return ""

    @property
    def culprit(self) -> str:
        """The step in words, as the subject of a sentence."""
        if self.cause:
            several = "s" * (", " in self.cause)
            return f"the optimizer{several} {self.cause} in {self.name}"
        apart = f"AOTAutograd's decomposition of {self.decomposition}" if self.decomposition else ""
        return apart or f"the pass {self.name}" + (f" of the {self.part} graph" if self.part else "")

    @property
    def loop(self) -> Loop | None:
        """The loop or kernel that computes the first wrong value, if the step's result consists of loops."""
        return find_loop(self.change.after.graph, self.verdict) if self.verdict.kind is Kind.REFUTED else None

    @property
    def source(self) -> str | None:
        """Line of the model's code at the first value that the pass got wrong, if known."""
        difference = self.verdict.difference
        loop = self.loop
        source = difference.source if difference is not None else None
        if loop is not None:
            source = loop.source or source
        return None if source is None else re.sub(r"[GL]\['\w+'\]\.?", "", source)  # Dynamo's name of the model

    def __repr__(self) -> str:
        judged = f", {self.verdict.kind.value}" if "verdict" in vars(self) else ""
        return f"Step({self.name!r}{judged})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "phase": self.phase,
            "part": self.part,
            "fired": self.fired,
            "nodes_before": self.nodes[0],
            "nodes_after": self.nodes[1],
            "source": self.source if self.fired else None,
            "pass_seconds": self.change.seconds,
            "verdict": self.verdict.to_dict(),
        }
