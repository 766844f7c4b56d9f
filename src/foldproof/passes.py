"""Folding as a pass for other pipelines: before PT2E quantization, inside ExecuTorch, in a pass manager.

Each fold is proved on its region, or withdrawn. After a run, ``result`` of the pass object lists the folds and the
declined ones. For a verdict on the whole program, and accuracies, use `foldproof.fuse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.errors import MissingExtra
from foldproof.fusion.rewriter import Account, Rewriter
from foldproof.proof import prove_region
from foldproof.rewriting.editor import GraphEditor

if TYPE_CHECKING:
    from executorch.exir.pass_base import ExportedProgramPassBase


def fold(program: ExportedProgram, passes: Sequence[str] | None = None) -> ExportedProgram:
    """Return a folded copy of a ``torch.export`` program or of an edge program.

    Args:
        program: the program to fold. It is not changed; the copy shares the weights that stay.
        passes: the rules to apply, as in `foldproof.fuse`.

    Raises:
        FoldproofError: ``program`` has a form that can't be changed, or a name in ``passes`` is unknown.
    """
    editor = GraphEditor.on_copy(program)
    _run(editor, passes)
    folded: ExportedProgram = editor.finish()
    return folded


def fold_(module: GraphModule, passes: Sequence[str] | None = None) -> None:
    """Fold a GraphModule of ``torch.export.export(...).module()`` in place, for example before ``prepare_pt2e``.

    Args:
        module: the GraphModule to fold.
        passes: the rules to apply, as in `foldproof.fuse`.

    Raises:
        FoldproofError: a name in ``passes`` is unknown.
    """
    FoldAffines(passes).call(module)


class FoldAffines(PassBase):
    """`fold_` as a pass for a ``torch.fx`` pass manager; changes the module in place.

    Args:
        passes: the rules to apply, as in `foldproof.fuse`.
    """

    def __init__(self, passes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.passes = passes
        self.result: Account | None = None

    def call(self, graph_module: GraphModule) -> PassResult:
        editor = GraphEditor.in_place(graph_module)
        self.result = _run(editor, self.passes)
        editor.finish()
        return PassResult(graph_module, bool(self.result.rewrites))


def executorch_pass(passes: Sequence[str] | None = None) -> ExportedProgramPassBase:
    """Return `fold` as an ExecuTorch pass, for ``transform_passes=`` and ``EdgeProgramManager.transform``.

    A pass on the graph alone is not enough: the weights of an edge program are in its state dictionary.

    Raises:
        MissingExtra: executorch is not installed.
    """
    try:
        from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
    except ImportError as error:
        raise MissingExtra("executorch", "executorch") from error

    class FoldAffinesOfProgram(ExportedProgramPassBase):  # type: ignore[misc]
        result: Account | None = None

        def call(self, exported_program: ExportedProgram) -> Any:
            editor = GraphEditor.on_copy(exported_program)
            self.result = _run(editor, passes)
            return ExportedProgramPassResult(editor.finish(), bool(self.result.rewrites))

    return FoldAffinesOfProgram()


def _run(editor: GraphEditor, passes: Sequence[str] | None) -> Account:
    return Rewriter.of(passes, prove_region).run(editor, lambda done, total, what: None, {})
