"""`watch` and `tap`: recording the passes that the user's own code runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch.fx.passes.infra.pass_manager import PassManager

from foldproof.auditing.log import Log
from foldproof.auditing.step import Step
from foldproof.auditing.taps.executorch import tap_executorch
from foldproof.auditing.taps.fx_passes import name_pass, observe, tap_passes
from foldproof.auditing.taps.torchao import tap_torchao
from foldproof.claim import SAME_CHOICES
from foldproof.errors import FoldproofError
from foldproof.formatting import as_html
from foldproof.proof.shapes import as_inputs
from foldproof.recording import record
from foldproof.verdict import Kind, warn_of_old_name


class Watched:
    """The recorded steps; the verdict of each is computed on first access."""

    def __init__(self, log: Log, inputs: Sequence[Any]) -> None:
        self._log, self._inputs, self._steps = log, inputs, list[Step]()
        self._recorded: set[int] = set()

    @property
    def steps(self) -> list[Step]:
        """All calls of passes, in order."""
        changes = self._log.changes
        if [step.change for step in self._steps] != changes:  # more were recorded meanwhile
            known = {id(step.change): step for step in self._steps}
            self._steps = [known.get(id(c)) or Step(c, self._inputs) for c in changes]
        return self._steps

    @property
    def refuted(self) -> list[Step]:
        """The steps that are REFUTED."""
        return [s for s in self._judged() if s.verdict.kind is Kind.REFUTED]

    def _judged(self) -> list[Step]:
        """The steps that changed a graph, with their verdicts; each is recorded once."""
        fired = [step for step in self.steps if step.fired]
        for step in fired:
            if id(step.change) not in self._recorded:
                self._recorded.add(id(step.change))
                record(f"watch: {step.name}", step.verdict)
        return fired

    @property
    def guilty(self) -> list[Step]:
        """Deprecated: use `refuted`."""
        warn_of_old_name(self, "guilty", "refuted")
        return self.refuted

    def __repr__(self) -> str:
        return f"<Watched: {sum(step.fired for step in self.steps)} of {len(self.steps)} steps changed a graph>"

    def _repr_html_(self) -> str:
        return as_html(str(self))

    def __str__(self) -> str:
        lines = [
            f"{s.verdict.kind.value:<13} {s.name} ({s.nodes[0]} → {s.nodes[1]} nodes)"
            + SAME_CHOICES * s.verdict.follows_choices
            for s in self._judged()
        ]
        if not lines and not self._log.optional and not self._log.changes:
            return "no pass was seen: plain functions are not watched, use prove_pass for them"
        return "\n".join(lines) or "no pass changed a graph"


@contextlib.contextmanager
def watch(inputs: Sequence[Any] = ()) -> Iterator[Watched]:
    """Record every graph pass that runs inside: `PassBase` objects, pass managers, torchao's and ExecuTorch's steps.

    torchao and ExecuTorch are watched if they were imported before. Plain functions that no pass manager calls are not
    seen: use `prove_pass` for them.

    Args:
        inputs: example inputs of the program that the passes work on; without them, random tensors of the traced shapes
            are used.

    Raises:
        FoldproofError: ``inputs`` is not a list or tuple.
    """
    inputs = as_inputs(inputs)
    log = Log()
    with contextlib.ExitStack() as stack:
        stack.enter_context(tap_passes(log))
        if "executorch.exir" in sys.modules:
            stack.enter_context(tap_executorch(log))
        if "torchao.quantization.pt2e.quantize_pt2e" in sys.modules:
            stack.enter_context(tap_torchao(log))
        yield Watched(log, inputs)


def tap(pass_manager: PassManager, inputs: Sequence[Any] = ()) -> Watched:
    """Record every pass of ``pass_manager`` from now on; the passes themselves are not changed.

    Raises:
        FoldproofError: ``pass_manager`` has no list of passes, or ``inputs`` is not a list or tuple.
    """
    inputs = as_inputs(inputs)
    passes = getattr(pass_manager, "passes", None)
    if not isinstance(passes, list):
        raise FoldproofError(f"a {type(pass_manager).__name__} has no list of passes to tap")
    log = Log()
    pass_manager.passes = [observe(log, name_pass(p), p) for p in passes]
    return Watched(log, inputs)
