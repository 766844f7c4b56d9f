"""The result of `fuse`: the folded program, the rewrites, and the declined operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

from foldproof.formatting import as_html
from foldproof.graph.view import GraphView, view_graph, views_to_dict
from foldproof.rewriting.account import Declined, group_declined, tell_declined
from foldproof.verdict import SCHEMA, Verdict


@dataclass(frozen=True)
class Saving:
    """The saving of a rewrite at each call: operator calls, and bytes of activations not read and written.

    ``copies`` is the cost: bytes of weights that are stored twice now, because other operators read the old ones.
    """

    operators: int
    bytes: int
    copies: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Distances of a region's result from the float64 result before and after a rewrite, on the example inputs.

    Distances are root mean squares of the errors, divided by that of the float64 result. ``epsilon`` is the machine
    epsilon of the result's dtype. ``identical`` is True if all results agree to the last bit.
    """

    before: float
    after: float
    epsilon: float
    identical: bool

    @property
    def ratio(self) -> float:
        """Ratio of the distance after to that before; distances below a quarter of ``epsilon`` count as that much."""
        return self.after / max(self.before, self.epsilon / 4)


@dataclass(frozen=True)
class Speed:
    """Median seconds of a region before and after a rewrite, on the machine that ``setting`` describes.

    ``same_bits`` is the number of inputs on which all results agreed there to the last bit; 0 if that was not required.
    """

    before: float
    after: float
    setting: str
    same_bits: int = 0

    def __str__(self) -> str:
        bits = f", with the same bits there on {self.same_bits} inputs" if self.same_bits else ""
        unit, factor = ("µs", 1e6) if max(self.before, self.after) < 1e-3 else ("ms", 1e3)
        return f"{factor * self.before:.3g} → {factor * self.after:.3g} {unit} on {self.setting}{bits}"


@dataclass(frozen=True)
class Rewrite:
    """A folded affine. ``nodes`` are all nodes touched; ``result`` is the (first) node that absorbed it.

    ``through`` are the operators that the affine was moved through. ``source`` is ``file:line`` of the model's own
    code, or the path of the module if no line is the model's own. ``verdict`` holds for the rewritten region alone.
    ``reported`` is the node that was folded away, as the name of the affine. A ``conditional`` rewrite is right only
    for parameters that give scales of the same signs, or for those at hand. A rewrite that depends on a measurement
    has a ``speed``. ``drawings`` show the region before and after, if it was proved.
    """

    rule: str
    nodes: tuple[str, ...]
    result: str
    source: str | None
    verdict: Verdict
    through: tuple[str, ...] = ()
    saving: Saving = Saving(0, 0)
    accuracy: Accuracy | None = None
    reported: str = ""
    conditional: bool = False
    speed: Speed | None = None
    drawings: tuple[GraphView, GraphView] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FuseResult:
    """The folded program, and an account of the folds.

    ``verdict`` holds for the whole program. ``operators_*`` count the calls in the graph by operator; ``bytes_*`` count
    the memory of parameters, buffers and constants, shared memory once. ``original`` shows the graph before.
    """

    program: ExportedProgram | GraphModule = field(repr=False)
    rewrites: tuple[Rewrite, ...]
    declined: tuple[Declined, ...]
    verdict: Verdict
    operators_before: Mapping[str, int]
    operators_after: Mapping[str, int]
    bytes_before: int
    bytes_after: int
    seconds: float
    original: GraphView = field(default=GraphView(()), repr=False)

    def __str__(self) -> str:
        lines = [f"{self.verdict.kind}: {self.verdict.reason}"]
        for one in self.rewrites:
            where = f" at {one.source}" if one.source else ""
            lines.append(f"  {one.verdict.kind}: {one.rule}, {one.reported or one.nodes[0]} into {one.result}{where}")
        lines += [f"  {tell_declined(several)}" for several in group_declined(self.declined)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        folds, declined = len(self.rewrites), len(self.declined)
        return f"<FuseResult {self.verdict.kind}: {folds} folded, {declined} declined>"

    def _repr_html_(self) -> str:
        return as_html(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the account as plain JSON values (see `foldproof.report`), without the program's weights."""
        return {
            "schema": SCHEMA,
            "command": "fuse",
            "rewrites": [
                {"rule": r.rule, "nodes": list(r.nodes), "result": r.result, "source": r.source}
                | {"through": list(r.through), "saving": asdict(r.saving), "reported": r.reported}
                | {"accuracy": asdict(r.accuracy) if r.accuracy else None, "verdict": r.verdict.to_dict()}
                | ({"speed": asdict(r.speed)} if r.speed else {})
                | {"graphs": views_to_dict(*r.drawings) if r.drawings else None}
                for r in self.rewrites
            ],
            "declined": [asdict(d) for d in self.declined],
            "verdict": self.verdict.to_dict(),
            "operators_before": dict(self.operators_before),
            "operators_after": dict(self.operators_after),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "seconds": self.seconds,
            "graphs": views_to_dict(self.original, view_graph(self.program)),
        }
