"""The rewrites as passes, of the kinds that ``torch.fx`` and ExecuTorch run. Each rewrite is proved, or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.errors import MissingExtra
from foldproof.graph.text import operator_name, source_of
from foldproof.proof import prove_region
from foldproof.qat.fold import Folded, fold_chain, quantize_bias
from foldproof.qat.image import Sizes
from foldproof.qat.operators import Operator
from foldproof.qat.rewriting import Claim, Rewriting
from foldproof.rewriting.account import Declined
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.host import GraphHost
from foldproof.rewriting.refusal import CannotFold
from foldproof.verdict import Kind, Verdict

if TYPE_CHECKING:
    from executorch.exir.pass_base import ExportedProgramPassBase

Rewrite = Callable[[Rewriting, Operator], Folded | None]


@dataclass
class Account:
    """What was done and what was declined, and a verdict for each region that was rewritten."""

    folded: list[Folded] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def rewritten(
    program: GraphModule | ExportedProgram, rewrites: list[Rewrite], sizes: Sizes, prove: bool = True
) -> tuple[Any, Account]:
    """A new program, in which for each linear operator the first of ``rewrites`` that does anything was applied.

    A rewrite that is not proved on its region is left out.
    """
    withdrawn: dict[str, Declined] = {}
    while True:
        made, account = _run(GraphEditor.on_copy(program).host, rewrites, sizes, withdrawn)
        if not prove:
            return made, account
        # Each region may err by 2^-40, and their chances add up; of two independent proofs they multiply.
        times = 1 if len(account.folded) == 1 else 2
        for folded in account.folded:
            account.verdicts.append(_proved(folded.claim, times))
            if account.verdicts[-1].proof is None:
                reason = f"its fold was withdrawn, for it is not proved: {account.verdicts[-1]}"
                withdrawn[folded.node] = Declined(folded.node, "", folded.source, reason)
                break
        else:
            account.declined += withdrawn.values()
            return made, account


def _run(host: GraphHost, rewrites: list[Rewrite], sizes: Sizes, skipped: Mapping[str, Any]) -> tuple[Any, Account]:
    account, rewriting = Account(), Rewriting(host, sizes)
    with torch.no_grad():
        for node in list(rewriting.image.twins.values()):
            operator = Operator.of(node, rewriting.image)
            for rewrite in rewrites if node.name not in skipped else ():
                if operator is None:
                    break
                try:
                    folded = rewrite(rewriting, operator)
                except CannotFold as refusal:
                    declined = Declined(node.name, operator_name(node), source_of(node), str(refusal))
                    account.declined.append(declined)
                    continue
                if folded is not None:
                    account.folded.append(folded)
                    break
        return rewriting.finish(), account


def _proved(claim: Claim, times: int) -> Verdict:
    data = torch.randn(claim.shape, generator=torch.Generator().manual_seed(0)).to(claim.dtype)
    verdicts = [prove_region(claim.before, claim.after, (data,), claim.derive) for _ in range(times)]
    for verdict in verdicts:
        if verdict.proof is None:
            return verdict
    with torch.no_grad():
        old, new = claim.before(data).dtype, claim.after(data).dtype
    if old != new:  # over the real numbers it is the same
        return Verdict(Kind.UNDECIDED, f"what follows it makes {old} of {new}, which would be left out")
    errors = [v.proof.log2_error for v in verdicts if v.proof is not None]
    first = verdicts[0]
    assert first.proof is not None
    return replace(first, proof=replace(first.proof, log2_error=sum(errors)), seconds=sum(v.seconds for v in verdicts))


class _Pass(PassBase):
    """Rewrites the GraphModule that it is given in place; what it did is in ``result``.

    Args:
        sizes: shapes by node name, where nodes have no ``meta["val"]``.
    """

    def __init__(self, rewrite: Rewrite, sizes: Sizes | None) -> None:
        super().__init__()
        self._rewrite, self._sizes = rewrite, sizes or {}
        self.result = Account()

    def call(self, graph_module: GraphModule) -> PassResult:
        _, self.result = rewritten(graph_module, [self._rewrite], self._sizes)
        kept = {folded.node for folded in self.result.folded}
        rest = {node.name: None for node in graph_module.graph.nodes if node.name not in kept}
        _run(GraphEditor.in_place(graph_module).host, [self._rewrite], self._sizes, rest)
        return PassResult(graph_module, bool(kept))


class QuantizeFusedConvBnBias(_Pass):
    """Gives every linear operator of quantized operands an int32 bias, see `quantize_bias`."""

    def __init__(self, *, sizes: Sizes | None = None) -> None:
        super().__init__(quantize_bias, sizes)


class FoldQATConvBN(_Pass):
    """Folds the chain after every linear operator, see `fold_chain`.

    Args:
        quantize_bias: False leaves biases in floating point, for backends that quantize them by themselves (XNNPACK).
        sizes: shapes by node name, where nodes have no ``meta["val"]``.
    """

    def __init__(self, *, quantize_bias: bool = True, sizes: Sizes | None = None) -> None:
        super().__init__(folding(quantize_bias), sizes)


def folding(quantize_bias: bool) -> Rewrite:
    """`fold_chain`, with biases of whole numbers or of floating point."""
    return lambda rewriting, operator: fold_chain(rewriting, operator, quantize_bias)


def rewrites(with_whole_biases: bool) -> list[Rewrite]:
    """All of them. A chain is folded first, so that its bias is rounded once."""
    return [folding(with_whole_biases), *([quantize_bias] if with_whole_biases else [])]


def executorch_pass(*, quantize_bias: bool = True) -> ExportedProgramPassBase:
    """Both rewrites as a pass of ExecuTorch: for ``transform_passes=`` and ``EdgeProgramManager.transform``.

    A pass on the graph alone would not do there: the weights of an edge program are in its state dictionary. Edge
    programs hold numbers such as eps in float32, so that scales cancel but for some 1e-13, which the weight takes in;
    `foldproof.fold_qat` before lowering leaves weights as they are.

    Args:
        quantize_bias: as of `foldproof.fold_qat`; False is what XNNPACK wants.

    Raises:
        MissingExtra: executorch is not installed.
    """
    try:
        from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
    except ImportError as error:
        raise MissingExtra("executorch", "executorch") from error

    class FoldQAT(ExportedProgramPassBase):  # type: ignore[misc]
        result: Account | None = None

        def call(self, exported_program: ExportedProgram) -> Any:
            made, self.result = rewritten(exported_program, rewrites(quantize_bias), {})
            return ExportedProgramPassResult(made, bool(self.result.folded))

    return FoldQAT()
