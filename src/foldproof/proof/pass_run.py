"""`prove_pass`: an unmodified compiler pass, run on shadows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.program import as_program
from foldproof.program.state import Kept
from foldproof.proof.decide import decide_all
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import ProofObligation, require_plain
from foldproof.proof.remade import Remade
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.torch_internals import set_graph
from foldproof.verdict import Kind, Verdict

Pass = Callable[[Any], Any]


def prove_pass(
    pass_fn: Pass,
    program: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    must_change: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that an unmodified pass keeps the meaning of ``program``.

    The pass runs on a copy whose parameters are shadows, so that the weights it computes remain functions of the old
    ones; the caller's program is not touched.

    Args:
        pass_fn: a function of the program. It may change the program in place (and return None or a bool), or return a
            GraphModule, nn.Module, ExportedProgram, or a PassResult.
        program: an nn.Module, GraphModule, or ExportedProgram (edge programs too).
        inputs: example positional arguments, as in `foldproof.prove`.
        kwargs: example keyword arguments.
        must_change: return UNDECIDED if the pass changes nothing, as with a pattern that never matches.
        seed: fixes the random draw.
        progress: called with (done, total, what).

    Raises:
        FoldproofError: ``program`` has no copy to run a pass on (a callable, TorchScript), or the pass returns
            something else.
        Exception: the pass raises on the program's own tensors.
    """
    first = as_program(program)
    if first.form == "callable" or isinstance(program, torch.jit.ScriptModule):
        raise FoldproofError("a pass needs something to rewrite: an nn.Module, a GraphModule or an ExportedProgram")
    if first.form == "GraphModule" and not first.nodes():
        raise FoldproofError(
            "calling this GraphModule does not run its graph: it has a forward of its own, or was edited without"
            " recompile(), so a pass over the graph would change nothing that is called; recompile it first"
        )
    require_plain(first)
    remade = Remade(first, functools.partial(_apply, pass_fn), "the pass")
    unchanged = remade.plain == remade.given
    if must_change and unchanged:
        return Verdict(Kind.UNDECIDED, UNCHANGED)
    obligations = [
        ProofObligation(first, remade.sides, args, named, True, remade=True, computes=False)
        for args, named in sampled_inputs(program, as_inputs(inputs), kwargs or {})
    ]
    verdict = decide_all(obligations, seed, progress)
    if unchanged and verdict.kind is Kind.PROVED:
        return replace(verdict, reason=f"{verdict.reason}: {UNCHANGED}")
    return verdict


UNCHANGED = "the pass changed nothing"


def _apply(pass_fn: Pass, program: Any) -> Any:
    """Run the pass and return the program that it made; the pass's own Python state (a counter, a log) is put back."""
    kept = Kept({}, [pass_fn])
    try:
        result = pass_fn(program)
    finally:
        kept.put_back()
    if result is None or isinstance(result, bool):  # True if it changed the program in place
        return program
    if isinstance(result, ExportedProgram):
        return result
    if isinstance(result, nn.Module) and not isinstance(program, ExportedProgram):
        return result
    module = result if isinstance(result, fx.GraphModule) else getattr(result, "graph_module", None)
    if not isinstance(module, fx.GraphModule):
        raise FoldproofError(f"the pass returned a {type(result).__name__}, which is no program")
    if isinstance(program, ExportedProgram):
        # The pass returned the graph only; signature and state are those of the given program.
        set_graph(program, module)
        return program
    return module
