"""The result of an audit: every step with its verdict, the end-to-end comparison, and a conclusion."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldproof.auditing.compilers.compiler import UNQUANTIZED
from foldproof.auditing.folder import Subject, save
from foldproof.auditing.gradients import PARTS
from foldproof.auditing.kernels import WrongKernel
from foldproof.auditing.loops import LOOP_STEPS
from foldproof.auditing.stages import BACKENDS, WHAT_RUNS, Stage, find_wrong, tell_stages
from foldproof.auditing.step import Step
from foldproof.claim import SAME_CHOICES
from foldproof.comparison import CompareResult
from foldproof.formatting import as_html
from foldproof.program.state import quiet_copies
from foldproof.verdict import SCHEMA, Kind, warn_of_old_name

if TYPE_CHECKING:
    from foldproof.comparison import CompareResult


@dataclass(frozen=True)
class Audit:
    """Every step of a compiler on one model, the comparison of the compiled model with the original, and a conclusion.

    ``end_to_end`` compares numbers, and ``compiled`` describes the compiled side. ``compile_seconds`` is the time of
    the recorded compilation, ``seconds`` that of the whole audit.
    """

    compiler: str
    options: Mapping[str, Any]
    steps: Sequence[Step]
    end_to_end: CompareResult | None
    compiled: str
    compile_seconds: float
    seconds: float
    versions: Mapping[str, str]
    disabled: tuple[str, ...] = ()
    model: Any = field(default=None, repr=False)
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    uncompared: str = ""
    """Reason why there is no ``end_to_end``."""
    optional: frozenset[str] = frozenset()
    """Passes that can be left out."""
    lowering: str = ""
    """Name of the lowering without which wrong numbers become right; empty if there is none."""
    crash: str = ""
    """The failure of the compiler, which came after the last step; empty if it compiled the model."""
    error: str = ""
    """The class of that failure and the beginning of its message."""
    stages: tuple[Stage, ...] = ()
    """The stages of `torch.compile`, if Inductor's numbers are wrong."""
    kernel: WrongKernel | None = None
    """The first generated kernel that computes other numbers than its loops, if the compiled model is wrong."""
    training: bool = False
    """True if the model was compiled with gradients."""

    @property
    def refuted(self) -> list[Step]:
        """The steps that are REFUTED."""
        return [s for s in self.steps if s.fired and s.verdict.kind is Kind.REFUTED]

    @property
    def guilty(self) -> list[Step]:
        """Deprecated: use `refuted`."""
        warn_of_old_name(self, "guilty", "refuted")
        return self.refuted

    @property
    def undecided(self) -> list[Step]:
        return [s for s in self.steps if s.fired and s.verdict.kind is Kind.UNDECIDED]

    @property
    def suspects(self) -> list[Step]:
        """Steps that move numbers at the given inputs by more than rounding, the one that moves them most first.

        They are undecided steps. Where no step is refuted, and the compiled model is wrong or not compared, a decided
        one counts if it makes an element infinite or nan, or finite: over the real numbers, it moves all others by
        rounding alone.
        """
        whole = self.end_to_end
        unsure = (whole is None or whole.verdict.kind is Kind.REFUTED) and not self.refuted
        asked = [s for s in self.steps if s.fired] if unsure else self.undecided
        moved = [(s, s.movement) for s in asked if s.movement is not None and not s.movement.explained]
        kept = [(s, m) for s, m in moved if s.verdict.kind is Kind.UNDECIDED or math.isinf(m.difference)]
        return [s for s, _ in sorted(kept, key=lambda one: -one[1].excess)]

    @property
    def kind(self) -> Kind:
        """Worst kind among the steps and the whole: REFUTED, else UNDECIDED, else ROUNDING, else PROVED."""
        kinds = [s.verdict.kind for s in self.steps if s.fired]
        kinds.append(self.end_to_end.verdict.kind if self.end_to_end is not None else Kind.UNDECIDED)
        order = (Kind.REFUTED, Kind.UNDECIDED, Kind.ROUNDING, Kind.PROVED_WITHIN)
        return next((k for k in order if k in kinds), Kind.PROVED)

    @property
    def conclusion(self) -> str:
        """Summary in one sentence, with the next thing to do."""
        fired = [s for s in self.steps if s.fired]
        if self.refuted:
            names = list(dict.fromkeys(s.title for s in self.refuted))
            first = self.refuted[0]
            at = f" at {first.source}" if first.source else ""
            others = f" (and so does {', '.join(names[1:])})" if len(names) > 1 else ""
            without = self.without(first.cause or first.name)
            if first.loop is not None:
                without = self.without(self.lowering) if self.lowering else None
                return f"wrong: the {names[0]} changes the meaning of the model in {first.loop.title}{at}{others}" + (
                    f"; audit without it: {without}" if without else ""
                )
            return f"wrong: {first.culprit} changes the meaning of the model{at}{others}" + (
                f"; audit without it: {without}" if without else ""
            )
        whole = self.end_to_end
        kinds = Counter(s.verdict.kind for s in fired)
        proved = kinds[Kind.PROVED] + kinds[Kind.PROVED_WITHIN]
        decided = "every graph pass is proved" if fired else "no pass changed the graph"
        seen = {(s.part, s.name) for s in self.steps}
        parts = PARTS if self.training else ("",)
        below = fired and proved == len(fired) and all((part, name) in seen for part in parts for name in LOOP_STEPS)
        if below:
            decided = "every graph pass, the lowering and the scheduling are proved"
        bounded = f", {kinds[Kind.PROVED_WITHIN]} within named bounds" * bool(kinds[Kind.PROVED_WITHIN])
        numbers = f"the numbers of {self.compiled}," if self.compiled.endswith(UNQUANTIZED) else "the numbers"
        decided += bounded
        chosen = sum(s.verdict.follows_choices for s in fired)
        decided += f" ({chosen} of {len(fired)}{SAME_CHOICES.replace(',', '')})" if chosen else ""
        if proved < len(fired):
            rounded = kinds[Kind.ROUNDING]
            decided = f"{proved} of {len(fired)} graph changes are proved{bounded}"
            decided += f", {rounded} differ{'s' * (rounded == 1)} by rounding only" if rounded else ""
        if self.undecided:
            reasons = Counter(s.verdict.reason for s in self.undecided)
            decided += f", {len(self.undecided)} undecided: {reasons.most_common(1)[0][0]}"
        if self.suspects and self.kernel is None:
            return self._suspicion(decided)
        if self.crash:
            return f"crash: {self.crash}; until then, {decided}"
        no_pass = f"no pass is wrong: {decided}"
        if self.undecided:
            no_pass = f"not decided: {decided}{_tell_still(self.undecided)}"
        if whole is None:
            return f"{no_pass}; {numbers} are not compared: {self.uncompared}"
        if self.kernel is not None:
            return f"wrong below the loops: {decided}, but {self.kernel}"
        if whole.verdict.kind is Kind.REFUTED and (above := find_wrong(self.stages)) in BACKENDS:
            return (
                f"wrong above the passes: {decided}, but the first stage that is wrong is {above}, {WHAT_RUNS[above]}"
            )
        if whole.verdict.kind is Kind.REFUTED and self.lowering:
            return (
                f"wrong below the graph: {decided}, but the lowering {self.lowering} gives other numbers than rounding"
                f" explains; audit without it: {self.without(self.lowering)}"
            )
        if whole.verdict.kind is Kind.REFUTED and not whole.verdict.reason.startswith("no rounding: the outputs"):
            return f"wrong below the graph: {decided}, but {self.compiled} is another: {whole.verdict.reason}"
        if whole.verdict.kind is Kind.REFUTED:
            return (
                f"wrong below the graph: {decided}, but {self.compiled} gives other numbers than rounding explains"
                f"{_sources(whole)}"
            )
        if whole.verdict.kind is Kind.UNDECIDED:
            return f"{no_pass}; {numbers} are undecided: {whole.verdict.reason}"
        if whole.uncompared and whole.verdict.kind is Kind.ROUNDING:
            same = "bit for bit the same" if whole.identical else "no further apart than rounding explains"
            return f"{no_pass}; the outputs are {same}, and {whole.uncompared}"
        if self.undecided:
            same = "are bit for bit the same" if whole.identical else "differ by no more than rounding explains"
            return f"{no_pass}; {numbers} {same}{_sources(whole)}"
        if whole.identical:
            return f"fine: {decided}, and {numbers} are bit for bit the same"
        if below:
            numbers = "what is left is the text of the kernels, whose numbers"
        return f"rounding: {decided}; {numbers} differ by no more than rounding explains{_sources(whole)}"

    def _suspicion(self, decided: str) -> str:
        """Name the step that moves numbers most."""
        first = self.suspects[0]
        verdict, without = first.verdict, self.without(first.name)
        why = "it is proved over the real numbers alone" if verdict.ok else f"its proof is undecided: {verdict.reason}"
        wrong = "wrong" if self.kind is Kind.REFUTED else "suspect"
        return f"{wrong}: {first.culprit} changes numbers ({first.movement}); {why}" + (
            f"; audit without it: {without}" if without else f"; of all steps, {decided}"
        )

    def without(self, name: str) -> str | None:
        """Return the option that leaves a pass out; None if it can't be left out."""
        parts = name.split(", ")  # patterns that match together share a row
        return f"--disable {shlex.quote(name)}" if self.optional.issuperset(parts) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON values (see `foldproof.report`), without pictures of the graphs."""
        return {
            "schema": SCHEMA,
            "command": "audit",
            "kind": self.kind.value,
            "conclusion": self.conclusion,
            "compiler": self.compiler,
            "options": {name: repr(value) for name, value in self.options.items()},
            "disabled": list(self.disabled),
            "training": self.training,
            "versions": dict(self.versions),
            "refuted": [s.name for s in self.refuted],
            "lowering": self.lowering,
            "steps": [s.to_dict() | {"without": self.without(s.name)} for s in self.steps],
            "end_to_end": self.end_to_end.to_dict() if self.end_to_end is not None else None,
            "compiled": self.compiled,
            "uncompared": self.uncompared,
            "kernel": self.kernel.to_dict() if self.kernel is not None else None,
            "stages": [stage.to_dict() for stage in self.stages],
            "compile_seconds": self.compile_seconds,
            "seconds": self.seconds,
        }

    def save(self, folder: str | Path) -> Path:
        """Write verdict.json and, for each culprit, a reproduction, both graphs and a report.

        Culprits are the REFUTED steps, else the first suspect, else a compiler that fails or gives wrong numbers.

        Raises:
            FoldproofError: the folder can't be written.
        """
        with quiet_copies():
            subject = Subject(self.model, self.args, self.kwargs, self.options, self.training)
            culprits = self.refuted or ([] if self.kernel is not None else self.suspects[:1])
            return save(self.to_dict(), culprits, self.error, subject, Path(folder))

    def __repr__(self) -> str:
        fired = sum(step.fired for step in self.steps)
        return f"<Audit of {self.compiler}, {self.kind}: {fired} of {len(self.steps)} steps changed a graph>"

    def _repr_html_(self) -> str:
        return as_html(f"{self.kind}: {self.conclusion}\n{str(self).removesuffix(self.conclusion).rstrip()}")

    def __str__(self) -> str:
        lines = [
            f"{self.compiler}: {len([s for s in self.steps if s.fired])} of {len(self.steps)} steps changed a graph"
        ]
        for step in self.steps:
            if step.fired:
                before, after = step.nodes
                lines.append(f"  {step.verdict.kind.value:<13} {step.title} ({before} → {after} nodes)")
        if self.end_to_end is not None:
            lines.append(f"end to end: {self.end_to_end.verdict}")
        if self.stages:
            lines.append(tell_stages(self.stages))
        return "\n".join([*lines, self.conclusion])


def _tell_still(undecided: Sequence[Step]) -> str:
    """Tell of undecided steps that the numbers at the given inputs show no change, if that was seen of all."""
    moved = [step.movement for step in undecided]
    if any(one is None for one in moved):
        return ""
    what = (
        "change no bit" if not any(one.difference for one in moved if one) else "move numbers by no more than rounding"
    )
    return f"; at the given inputs, the undecided ones {what}"


def _sources(whole: CompareResult) -> str:
    first = next(iter(whole.sources), None)
    if first is None or (first.share or 0.0) < 0.5:
        return ""
    what = "it comes" if first.measured else "such rounding is to be expected"
    return f"; most of {what} from {first.operator}" + (f" at {first.source}" if first.source else "")
