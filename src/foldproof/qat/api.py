"""One call: fold the chains, quantize the biases, prove it, and say how far the result is from what was given."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from foldproof.errors import FoldproofError
from foldproof.fusion.exported import ExportedHost
from foldproof.fusion.module import copied_module
from foldproof.fusion.result import Declined
from foldproof.program import as_program
from foldproof.proof import prove as prove_programs
from foldproof.qat.passes import Account, Folded, FoldQATConvBN, QuantizeFusedConvBnBias
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
    kwargs = dict(kwargs or {})
    shapes, ranges = _observed(program, inputs, kwargs)
    fold = FoldQATConvBN(quantize_bias=quantize_bias, shapes=shapes)
    # Folded first, a bias is rounded once; as passes of their own they may run in either order.
    folded_program = fold.transform(program)
    rest = QuantizeFusedConvBnBias(quantize_bias=quantize_bias)
    after = rest.transform(folded_program)
    folded = (*fold.account.folded, *rest.account.folded)
    if not folded:
        verdict = Verdict(Kind.PROVED, "nothing was rewritten, so the program is the same", "all inputs and parameters")
    elif not prove:
        verdict = Verdict(Kind.UNDECIDED, "the proof was switched off (prove=False)")
    else:
        verdict = _proved(program, after, inputs, kwargs, fold.account, rest.account, ranges)
    return FoldQATResult(
        after,
        folded,
        tuple(fold.account.declined),
        verdict,
        {f.node: ranges[f.node] for f in folded},
        time.perf_counter() - started,
    )


def _proved(
    before: Program,
    after: Program,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    fold: Account,
    rest: Account,
    ranges: Mapping[str, float],
) -> Verdict:
    """The proof, between the programs without the quantizations that were left out or moved, which are steps."""

    def derive(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first = fold.derive(leaves)
        return first | rest.derive({**leaves, **first})

    first, second = _without(before, fold.left_out), _without(after, fold.moved)
    verdict = prove_programs(first, second, inputs, kwargs, derive=derive)
    if verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN):
        return verdict
    shares = {f.bias.name: f.bias.bound / ranges[f.node] for f in (*fold.folded, *rest.folded) if ranges[f.node]}
    named = tuple(_with_share(step, shares) for step in verdict.steps)
    steps = (*named, *(step for f in fold.folded for step in f.steps))
    if not steps:
        return verdict
    reason = f"the same function over the real numbers, but for {len(steps)} named step{'s'[: len(steps) > 1]}"
    return replace(verdict, kind=Kind.PROVED_WITHIN, reason=reason, steps=steps)


def _with_share(step: ApproximationStep, shares: Mapping[str, float]) -> ApproximationStep:
    name = step.name.split(" ")[0]
    return replace(step, name=f"{step.name} ({shares[name]:.1g} of the output's range)") if name in shares else step


def _without(program: Program, quantizations: list[str]) -> Program:
    """A copy of the program in which these quantizations, each with its dequantization, are the identity."""
    if not quantizations:
        return program
    host: Any = ExportedHost(program) if isinstance(program, ExportedProgram) else None
    copy = None if host else copied_module(program)  # type: ignore[arg-type]
    graph = host.graph if host else copy.graph  # type: ignore[union-attr]
    erased = {}
    for node in [n for n in graph.nodes if n.name in quantizations]:
        (back,) = node.users
        back.replace_all_uses_with(node.args[0])
        erased[back.name] = node.args[0].name
        graph.erase_node(back)
        graph.erase_node(node)
    if host:
        made: Program = host.finish(erased)
        return made
    assert copy is not None
    copy.recompile()
    return copy


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
