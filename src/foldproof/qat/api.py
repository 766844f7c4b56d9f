"""The public function `fold_qat`: fold the chains, quantize the biases, and prove the result within bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from foldproof.claim import meet
from foldproof.errors import FoldproofError, brief
from foldproof.formatting import as_html
from foldproof.graph.view import GraphView, view_graph, views_to_dict
from foldproof.program import as_program
from foldproof.proof.shapes import as_inputs
from foldproof.qat.fold import Folded
from foldproof.qat.fold_pass import Account, list_rewrites, rewrite_program
from foldproof.rewriting.account import UNCHANGED, UNPROVED, Declined, ProvedRewrite
from foldproof.verdict import SCHEMA, ApproximationStep, Kind, Verdict, plain


@dataclass(frozen=True)
class FoldQATResult:
    """The folded program, and an account of the folds.

    ``ranges`` maps each operator in ``folded`` to the range of its output at the given inputs. The rounding of a bias
    can move the output by the share ``folded[i].bias.bound`` over this range. ``original`` shows the graph before.
    """

    program: GraphModule | ExportedProgram = field(repr=False)
    folded: tuple[Folded, ...]
    declined: tuple[Declined, ...]
    verdict: Verdict
    ranges: Mapping[str, float]
    seconds: float
    original: GraphView = field(default=GraphView(()), repr=False)
    rewrites: tuple[ProvedRewrite, ...] = ()
    """One for each of ``folded``, with the attributes that those of `foldproof.fuse` have."""

    def __str__(self) -> str:
        lines = [f"{self.verdict.kind}: {self.verdict.reason}"]
        lines += [f"  folded: {' → '.join(one.chain)} at {one.source or one.node}" for one in self.folded]
        lines += [f"  {one}" for one in self.declined]
        return "\n".join(lines)

    def __repr__(self) -> str:
        folds, declined = len(self.folded), len(self.declined)
        return f"<FoldQATResult {self.verdict.kind}: {folds} folded, {declined} declined>"

    def _repr_html_(self) -> str:
        return as_html(str(self))

    def share(self, folded: Folded) -> float:
        """Return the bound of a bias as a share of the range of its operator's output; infinite if that is constant."""
        return _compute_share(folded, self.ranges)

    def to_dict(self) -> dict[str, Any]:
        """Return the account as plain JSON values (see `foldproof.report`), without the program's weights."""
        return {
            "schema": SCHEMA,
            "command": "fold-qat",
            "folded": [
                {"node": f.node, "source": f.source, "chain": list(f.chain), "exact": f.exact}
                | {"bias": f.bias.name, "bound": plain(f.bias.bound), "step": f.bias.step}
                | {"range": plain(self.ranges[f.node]), "share": plain(self.share(f))}
                | {"saturated": list(f.bias.saturated), "steps": [plain(asdict(s)) for s in f.steps]}
                for f in self.folded
            ],
            "declined": [asdict(d) for d in self.declined],
            "verdict": self.verdict.to_dict(),
            "seconds": self.seconds,
            "graphs": views_to_dict(self.original, view_graph(self.program)),
        }


def fold_qat(
    program: GraphModule | ExportedProgram,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    quantize_bias: bool = True,
    prove: bool = True,
) -> FoldQATResult:
    """Fold the BatchNorms that quantization-aware training left after convolutions and linears.

    They go into the biases and weight scales of the operators before them.

    Args:
        program: the result of ``convert_pt2e`` (a GraphModule), or its ``torch.export`` program. It is not changed; the
            result has the same form, and shares the tensors that stay.
        inputs: example inputs, positional; the shapes at which the proof is made.
        kwargs: example inputs, by keyword.
        quantize_bias: True quantizes the biases of operators with quantized input and weight to int32, in steps of
            input scale times weight scale, with zero point 0. False leaves them in floating point, rounded once to the
            weight's dtype, as XNNPACK requires, which quantizes biases itself and refuses quantized ones.
        prove: False skips the proof; the verdict is then UNDECIDED.

    Returns:
        The folded program, the folded and declined operators, and a verdict: PROVED_WITHIN with a step for each rounded
        bias and each quantization that was left out or moved, or PROVED if there are none.

    Raises:
        FoldproofError: ``program`` has another form, or can't be run on the inputs; also the errors of
            `foldproof.prove`.

    Warns:
        UserWarning: a bias does not fit into 32 bits; the message names the channels.
    """
    started = time.perf_counter()
    if not isinstance(program, (GraphModule, ExportedProgram)):
        raise FoldproofError(
            f"can't fold an object of type {type(program).__name__}: give the result of convert_pt2e, or its"
            " torch.export program"
        )
    sizes, ranges = _observe(program, as_inputs(inputs), dict(kwargs or {}))
    made, account = rewrite_program(program, list_rewrites(quantize_bias), sizes, prove)
    return FoldQATResult(
        made,
        tuple(account.folded),
        tuple(account.declined),
        _combine_verdicts(account, ranges, prove),
        {f.node: ranges[f.node] for f in account.folded},
        time.perf_counter() - started,
        view_graph(program),
        tuple(_list_rewrites(account, ranges, prove)),
    )


def _list_rewrites(account: Account, ranges: Mapping[str, float], prove: bool) -> Iterator[ProvedRewrite]:
    for i, f in enumerate(account.folded):
        verdict = UNPROVED
        if prove:
            steps = (*(_add_share(s, f, ranges) for s in account.verdicts[i].steps), *f.steps)
            kind = Kind.PROVED_WITHIN if steps else account.verdicts[i].kind
            verdict = replace(account.verdicts[i], kind=kind, steps=steps)
        yield ProvedRewrite("fold_qat", (*f.chain, f.node), f.node, f.source, verdict)


def _combine_verdicts(account: Account, ranges: Mapping[str, float], prove: bool) -> Verdict:
    """Combine the verdicts of the regions.

    Equal regions make equal programs, by substitution; the chances that one of them is wrong add up.
    """
    if not account.folded:
        return UNCHANGED
    if not prove:
        return UNPROVED
    proofs = [v.proof for v in account.verdicts if v.proof is not None]
    weakest = max(proofs, key=lambda p: p.log2_error)
    proof = replace(
        weakest,
        log2_error=math.log2(sum(2.0**p.log2_error for p in proofs)),
        attempts=sum(p.attempts for p in proofs),
        uninterpreted=tuple(dict.fromkeys(name for p in proofs for name in p.uninterpreted)),
        branching=tuple(dict.fromkeys(name for p in proofs for name in p.branching)),
    )
    steps = [step for rewrite in _list_rewrites(account, ranges, prove) for step in rewrite.verdict.steps]
    named = "the same function over the real numbers"
    if steps:
        named += f", but for {len(steps)} named step{'s'[: len(steps) > 1]}"
    claim = meet(v.claim for v in account.verdicts if v.claim is not None)
    return Verdict(
        claim=replace(claim, local_bounds=bool(steps)),  # steps of observers are in no region
        kind=Kind.PROVED_WITHIN if steps else Kind.PROVED,
        reason=f"{named}, operator by operator",
        proof=proof,
        steps=tuple(steps),
        notes=tuple(dict.fromkeys(note for v in account.verdicts for note in v.notes)),
        seconds=sum(v.seconds for v in account.verdicts),
    )


def _add_share(step: ApproximationStep, folded: Folded, ranges: Mapping[str, float]) -> ApproximationStep:
    return replace(step, name=f"{step.name} ({_compute_share(folded, ranges):.1g} of the output's range)")


def _compute_share(folded: Folded, ranges: Mapping[str, float]) -> float:
    return folded.bias.bound / ranges[folded.node] if ranges[folded.node] else math.inf


def _observe(
    program: GraphModule | ExportedProgram, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, torch.Size | int], dict[str, float]]:
    """Run the program; return the shape of each tensor and the value of each integer, and the range of each tensor."""
    sizes: dict[str, torch.Size | int] = {}
    ranges: dict[str, float] = {}

    def note(node: Node, out: Any) -> None:
        if isinstance(out, Tensor):
            sizes[node.name] = out.shape
            if out.is_floating_point():
                ranges[node.name] = float(out.max() - out.min()) if out.numel() else 0.0
        elif isinstance(out, int) and not isinstance(out, bool):
            sizes[node.name] = out

    source = as_program(program)
    own = {name: leaf.tensor.detach().clone() for name, leaf in source.leaves.items()}
    try:
        with torch.no_grad():
            source.run(own, inputs, kwargs, note)
    except FoldproofError:
        raise
    except Exception as error:
        raise FoldproofError(f"the program can't be run on these inputs: {brief(error)}") from error
    return sizes, ranges
