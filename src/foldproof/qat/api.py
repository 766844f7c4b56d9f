"""One call: fold the chains, quantize the biases, prove it, and say how far the result is from what was given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from foldproof.errors import FoldproofError
from foldproof.fusion.result import Declined
from foldproof.program import as_program
from foldproof.proof import prove_region
from foldproof.qat.passes import Folded, FoldQATConvBN, QuantizeFusedConvBnBias
from foldproof.verdict import ApproximationStep, Kind, Verdict

Program = GraphModule | ExportedProgram


@dataclass(frozen=True)
class FoldQATResult:
    """The folded program, and an account of it.

    ``ranges`` gives for each operator in ``folded`` the range of its output at the given inputs, so that
    ``folded[i].bias.bound`` over it is the share by which the rounding of the bias can move the output.
    """

    program: GraphModule | ExportedProgram = field(repr=False)
    folded: tuple[Folded, ...]
    declined: tuple[Declined, ...]
    verdict: Verdict
    ranges: Mapping[str, float]
    seconds: float

    def share(self, folded: Folded) -> float:
        """The bound of a bias as a share of the range of its operator's output."""
        return folded.bias.bound / self.ranges[folded.node]

    def to_dict(self) -> dict[str, Any]:
        """The account as plain JSON values, without the program."""
        return {
            "folded": [
                {"node": f.node, "source": f.source, "chain": list(f.chain), "exact": f.exact}
                | {"bias": f.bias.name, "bound": f.bias.bound, "step": f.bias.step, "share": self.share(f)}
                | {"saturated": list(f.bias.saturated), "steps": [asdict(s) for s in f.steps]}
                for f in self.folded
            ],
            "declined": [asdict(d) for d in self.declined],
            "verdict": self.verdict.to_dict(),
            "seconds": self.seconds,
        }


def fold_qat(
    program: GraphModule | ExportedProgram,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    quantize_bias: bool = True,
    prove: bool = True,
) -> FoldQATResult:
    """Folds what quantization-aware training left after convolutions and linears into their biases and weight scales.

    Args:
        program: what ``convert_pt2e`` made (a GraphModule), or its ``torch.export`` program. It is not changed; the
            result is of the same form, and shares with it the tensors that stay.
        inputs: example inputs, positional; the shapes at which the proof is made.
        kwargs: example inputs, by keyword.
        quantize_bias: biases of operators with quantized input and weight become int32, in steps of input scale times
            weight scale, with zero point 0. False leaves them in floating point, rounded once to the weight's dtype: so
            XNNPACK wants them, which makes whole numbers of them by itself and refuses those it is given.
        prove: False skips the proof; the verdict is then UNDECIDED.

    Returns:
        The folded program, what was folded and what was not, and a verdict: PROVED_WITHIN with a step for each bias
        that was rounded and each quantization that was left out or moved, or PROVED where there is none.

    Raises:
        FoldproofError: ``program`` is neither form, or can't be run on the inputs; also what `foldproof.prove` raises.

    Warns:
        UserWarning: a bias does not fit into 32 bits; the channels are named.
    """
    started = time.perf_counter()
    if not isinstance(program, (GraphModule, ExportedProgram)):
        raise FoldproofError(
            f"can't fold a {type(program).__name__}: give what convert_pt2e made, or its torch.export program"
        )
    shapes, ranges = _observed(program, inputs, dict(kwargs or {}))
    made, declined = _proved(lambda skipped: _transformed(program, quantize_bias, shapes, skipped), prove)
    return FoldQATResult(
        made.program,
        tuple(made.folded),
        (*made.declined, *declined),
        _verdict(made, ranges, prove),
        {f.node: ranges[f.node] for f in made.folded},
        time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Made:
    program: Program
    folded: list[Folded]
    declined: list[Declined]
    verdicts: list[Verdict] = field(default_factory=list)
    """Of the region of each fold."""


def _transformed(program: Program, quantize_bias: bool, shapes: Mapping[str, torch.Size], skipped: set[str]) -> _Made:
    fold = FoldQATConvBN(quantize_bias=quantize_bias, shapes=shapes, skipped=skipped)
    rest = QuantizeFusedConvBnBias(quantize_bias=quantize_bias, shapes=shapes, skipped=skipped)
    # Folded first, a bias is rounded once; as passes of their own they may run in either order.
    after = rest.transform(fold.transform(program))
    return _Made(after, [*fold.account.folded, *rest.account.folded], fold.account.declined)


def _proved(transformed: Callable[[set[str]], _Made], prove: bool) -> tuple[_Made, list[Declined]]:
    """The rewritten program, without the folds that are not proved on their region."""
    withdrawn: dict[str, Declined] = {}
    while True:
        made = transformed(set(withdrawn))
        if not prove:
            return made, []
        for f in made.folded:
            assert f.claim is not None
            data = torch.randn(f.claim.shape, generator=torch.Generator().manual_seed(0))
            verdict = prove_region(f.claim.before, f.claim.after, (data,), f.claim.derive)
            made.verdicts.append(verdict)
            if verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN):
                reason = f"its fold was withdrawn, for it is not proved: {verdict}"
                withdrawn[f.node] = Declined(f.node, "", f.source, reason)
                break
        else:
            return made, list(withdrawn.values())


def _verdict(made: _Made, ranges: Mapping[str, float], prove: bool) -> Verdict:
    """Equal regions make equal programs, by substitution; the chances that one of them is wrong add up."""
    if not made.folded:
        return Verdict(Kind.PROVED, "nothing was rewritten, so the program is the same", "all inputs and parameters")
    if not prove:
        return Verdict(Kind.UNDECIDED, "the proof was switched off (prove=False)")
    proofs = [v.proof for v in made.verdicts if v.proof is not None]
    weakest = max(proofs, key=lambda p: p.log2_error)
    proof = replace(
        weakest,
        log2_error=weakest.log2_error + math.log2(len(proofs)),
        shapes=tuple(shape for p in proofs for shape in p.shapes),
        opaque=tuple(dict.fromkeys(name for p in proofs for name in p.opaque)),
        branch=tuple(dict.fromkeys(name for p in proofs for name in p.branch)),
    )
    steps = [
        step
        for f, verdict in zip(made.folded, made.verdicts)
        for step in (*(_with_share(s, f, ranges) for s in verdict.steps), *f.steps)
    ]
    named = "the same function over the real numbers"
    if steps:
        named += f", but for {len(steps)} named step{'s'[: len(steps) > 1]}"
    first = made.verdicts[0]
    notes = tuple(dict.fromkeys(note for v in made.verdicts for note in v.notes))
    return replace(
        first,
        kind=Kind.PROVED_WITHIN if steps else Kind.PROVED,
        reason=f"{named}, operator by operator",
        proof=proof,
        steps=tuple(steps),
        notes=notes,
        seconds=sum(v.seconds for v in made.verdicts),
    )


def _with_share(step: ApproximationStep, folded: Folded, ranges: Mapping[str, float]) -> ApproximationStep:
    share = folded.bias.bound / ranges[folded.node] if ranges[folded.node] else math.inf
    return replace(step, name=f"{step.name} ({share:.1g} of the output's range)")


def _observed(
    program: Program, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, torch.Size], dict[str, float]]:
    """The shape of every value, and the largest less the smallest of its elements, at these inputs."""
    shapes: dict[str, torch.Size] = {}
    ranges: dict[str, float] = {}

    def note(node: Node, out: Any) -> None:
        if isinstance(out, Tensor):
            shapes[node.name] = out.shape
            if out.is_floating_point() and out.numel():
                ranges[node.name] = float(out.max() - out.min())

    source = as_program(program)
    own = {name: leaf.tensor.detach().clone() for name, leaf in source.leaves.items()}
    try:
        with torch.no_grad():
            source.run(own, inputs, kwargs, note)
    except FoldproofError:
        raise
    except Exception as error:
        raise FoldproofError(f"the program can't be run on these inputs: {error}") from error
    return shapes, ranges
