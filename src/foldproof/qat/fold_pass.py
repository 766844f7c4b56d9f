"""The rewrites as passes for ``torch.fx`` and ExecuTorch. Each rewrite is proved, or left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.errors import MissingExtra
from foldproof.graph.text import operator_name, source_of
from foldproof.proof import prove_region
from foldproof.qat.context import Context
from foldproof.qat.fold import Fold, Folded, fold_chain, quantize_bias
from foldproof.qat.operators import Operator
from foldproof.rewriting.account import Declined
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.rewrite import RewrittenRegion
from foldproof.rewriting.sizes import Observed, Sizes
from foldproof.verdict import Kind, Verdict

if TYPE_CHECKING:
    from executorch.exir.pass_base import ExportedProgramPassBase

Rewrite = Callable[[Context, Operator], Fold | None]


@dataclass
class Account:
    """The folded and declined operators, and a verdict for each rewritten region."""

    folded: list[Folded] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def rewrite_program(
    program: GraphModule | ExportedProgram, rewrites: Sequence[Rewrite], sizes: Observed, prove: bool = True
) -> tuple[Any, Account]:
    """Apply to each linear operator of a copy the first of ``rewrites`` that has a plan for it.

    A rewrite that is not proved on its region is left out.
    """
    editor = GraphEditor.on_copy(program)
    account = run(editor, rewrites, sizes, prove)
    return editor.finish(), account


def run(editor: GraphEditor, rewrites: Sequence[Rewrite], sizes: Observed, prove: bool = True) -> Account:
    """Rewrite the program under edit; see `rewrite_program`."""
    account, context = Account(), Context(editor, Sizes(sizes))
    with torch.no_grad():
        operators = [o for node in list(editor.graph.nodes) if (o := Operator.of(node, context)) is not None]
        # A proof of a region is wrong with a chance of 2^-40. The chances of several regions add up, so each is proved
        # twice: the chances of independent proofs multiply.
        proofs = 0 if not prove else min(len(operators), 2)
        for operator in operators:
            for rewrite in rewrites:
                try:
                    fold = rewrite(context, operator)
                except CannotFold as refusal:
                    account.declined.append(_decline(operator.node, str(refusal)))
                    continue
                if fold is not None:
                    _carry_out(fold, context, account, proofs)
                    break
    return account


def _carry_out(fold: Fold, context: Context, account: Account, proofs: int) -> None:
    """Carry out a fold if it is proved."""
    if proofs:
        verdict = _prove_fold(fold.region(context), fold.operator, context, proofs)
        if verdict.proof is None:
            reason = f"its fold was withdrawn, because it is not proved: {verdict}"
            account.declined.append(_decline(fold.operator.node, reason))
            return
        account.verdicts.append(verdict)
    fold.carry_out(context)
    account.folded.append(fold.account)


def _decline(node: Node, reason: str) -> Declined:
    return Declined(node.name, operator_name(node), source_of(node), reason)


def _prove_fold(region: RewrittenRegion, operator: Operator, context: Context, times: int) -> Verdict:
    shape = context.sizes.shape(operator.data)
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(operator.dtype)
    verdicts = [prove_region(region.before, region.after, (data,), region.derive) for _ in range(times)]
    for verdict in verdicts:
        if verdict.proof is None:
            return verdict
    (old,), (new,) = region.before(data), region.after(data)
    if old.dtype != new.dtype:  # a proof over the real numbers does not show this
        return Verdict(Kind.UNDECIDED, f"the removed operators after it convert {new.dtype} to {old.dtype}")
    errors = [v.proof.log2_error for v in verdicts if v.proof is not None]
    first = verdicts[0]
    assert first.proof is not None
    return replace(first, proof=replace(first.proof, log2_error=sum(errors)), seconds=sum(v.seconds for v in verdicts))


class _Pass(PassBase):
    """A pass that rewrites a GraphModule in place, and keeps the account in ``result``.

    Args:
        sizes: shapes by node name, for nodes without ``meta["val"]``.
    """

    def __init__(self, rewrite: Rewrite, sizes: Observed | None) -> None:
        super().__init__()
        self._rewrite, self._sizes = rewrite, sizes or {}
        self.result = Account()

    def call(self, graph_module: GraphModule) -> PassResult:
        editor = GraphEditor.in_place(graph_module)
        self.result = run(editor, [self._rewrite], self._sizes)
        editor.finish()
        return PassResult(graph_module, bool(self.result.folded))


class QuantizeFusedConvBnBias(_Pass):
    """Gives every linear operator with quantized operands an int32 bias; see `quantize_bias`."""

    def __init__(self, *, sizes: Observed | None = None) -> None:
        super().__init__(quantize_bias, sizes)


class FoldQATConvBN(_Pass):
    """Folds the chain after every linear operator; see `fold_chain`.

    Args:
        quantize_bias: False leaves biases in floating point, for backends that quantize biases themselves (XNNPACK).
        sizes: shapes by node name, for nodes without ``meta["val"]``.
    """

    def __init__(self, *, quantize_bias: bool = True, sizes: Observed | None = None) -> None:
        super().__init__(make_folding(quantize_bias), sizes)


def make_folding(quantize_bias: bool) -> Rewrite:
    """Return `fold_chain` with integer or floating-point biases."""
    return lambda context, operator: fold_chain(context, operator, quantize_bias)


def list_rewrites(with_whole_biases: bool) -> list[Rewrite]:
    """List all rewrites. Folding the chain comes first, so that the bias is rounded once."""
    return [make_folding(with_whole_biases), *([quantize_bias] if with_whole_biases else [])]


def executorch_pass(*, quantize_bias: bool = True) -> ExportedProgramPassBase:
    """Return both rewrites as an ExecuTorch pass, for ``transform_passes=`` and ``EdgeProgramManager.transform``.

    A pass on the graph alone is not enough: the weights of an edge program are in its state dictionary. Edge programs
    hold numbers such as eps in float32, so scales cancel only up to about 1e-13, and the weight absorbs the rest.
    `foldproof.fold_qat` before lowering leaves weights unchanged.

    Args:
        quantize_bias: as in `foldproof.fold_qat`; XNNPACK requires False.

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
            made, self.result = rewrite_program(exported_program, list_rewrites(quantize_bias), {})
            return ExportedProgramPassResult(made, bool(self.result.folded))

    return FoldQAT()
