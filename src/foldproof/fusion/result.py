"""What `fuse` did, and what it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

from foldproof.graph.view import GraphView, view_graph, views_to_dict
from foldproof.rewriting.account import Declined
from foldproof.verdict import SCHEMA, Verdict


@dataclass(frozen=True)
class Saving:
    """What a rewrite saves at each call: operator calls, and bytes of activations that need not be read and written.

    ``copies`` is what it costs: bytes of weights that are held twice now, because other operators read the old ones.
    """

    operators: int
    bytes: int
    copies: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Distances of a region's result from the float64 result before and after a rewrite, on the example inputs.

    Root mean squares of the errors, over that of the float64 result; ``epsilon`` is that of the result's dtype. ``identical`` is
    whether all results are the same to the last bit.
    """

    before: float
    after: float
    epsilon: float
    identical: bool

    @property
    def ratio(self) -> float:
        """How many times as far it is after; errors below a quarter of ``epsilon`` count as that much."""
        return self.after / max(self.before, self.epsilon / 4)


@dataclass(frozen=True)
class Speed:
    """Medians of the seconds that a region took before and after a rewrite, on the machine that ``setting`` tells.

    ``same_bits`` is on how many inputs all results were the same to the last bit, there; 0 where that was not asked.
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
    """An affine that was folded away. ``nodes`` are all that it touched; ``result`` took it in, the first of several.

    ``through`` are the operators that the affine was moved through. ``source`` is ``file:line`` of the model's own
    code, or the path of the module where no line is the model's own. ``verdict`` is about the rewritten region alone,
    ``reported`` the node that was folded away, which stands for the affine. A ``conditional`` rewrite is right for
    parameters that give its scales these signs. A rewrite that is made only where it is faster has a ``speed``.
    ``drawings`` show the region before and after, where it was proved.
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
    """The folded program, and an account of it.

    ``verdict`` is about the whole program. ``operators_*`` count the calls in the graph by operator; ``bytes_*`` count
    the memory of parameters, buffers and constants, shared memory once. ``original`` shows the graph as it was.
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

    def to_dict(self) -> dict[str, Any]:
        """The account as plain JSON values (see `foldproof.report`), without the program's weights."""
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
