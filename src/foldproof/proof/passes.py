"""`prove_pass`: an unmodified compiler pass, run on shadows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.program import as_program
from foldproof.proof.decide import Progress, decide_all
from foldproof.proof.question import Question, Sides, Tensors
from foldproof.proof.shapes import sampled_inputs
from foldproof.verdict import Verdict

Pass = Callable[[Any], Any]


def prove_pass(
    pass_fn: Pass,
    program: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Does an unmodified pass keep the meaning of ``program``?

    The pass runs on a copy whose parameters are shadows, so that the weights it computes still know which function
    of the old ones they are; the caller's program is not touched.

    Args:
        pass_fn: takes the program. May change it in place (returning None), or return a GraphModule, nn.Module,
            ExportedProgram, or a PassResult.
        program: an nn.Module, GraphModule, or ExportedProgram (edge programs too).
        inputs: example positional arguments, as in `foldproof.prove`.
        kwargs: example keyword arguments.
        seed: fixes the random draw.
        progress: called with (done, total, what).

    Raises:
        FoldproofError: ``program`` has no copy to run a pass on (a callable), or the pass returns something else.
        Exception: whatever the pass raises on the program's own tensors.
    """
    first = as_program(program)
    if first.form == "callable":
        raise FoldproofError("a pass needs something to rewrite: an nn.Module, a GraphModule or an ExportedProgram")
    own = {name: leaf.tensor.detach().clone() for name, leaf in first.leaves.items()}
    expected = _operators(_apply(pass_fn, first.with_leaves(own)))
    notes: list[str] = []

    def sides(leaves: Tensors) -> Sides:
        after = _apply(pass_fn, first.with_leaves(leaves))
        second = as_program(after)
        if _operators(after) != expected and not notes:
            notes.append("the pass took another route on other parameters than on the program's own")
        return Sides(second, {name: leaf.tensor for name, leaf in second.leaves.items()})

    claim = "all inputs and all parameters"
    questions = [
        Question(first, sides, args, named, True, claim, notes=notes)
        for args, named in sampled_inputs(program, inputs, kwargs or {})
    ]
    return decide_all(questions, seed, progress)


def _apply(pass_fn: Pass, program: Any) -> Any:
    """Run the pass and find the program that it made."""
    result = pass_fn(program)
    if result is None:
        return program
    if isinstance(result, ExportedProgram):
        return result
    if isinstance(result, nn.Module) and not isinstance(program, ExportedProgram):
        return result
    module = result if isinstance(result, fx.GraphModule) else getattr(result, "graph_module", None)
    if not isinstance(module, fx.GraphModule):
        raise FoldproofError(f"the pass returned a {type(result).__name__}, which is no program")
    if isinstance(program, ExportedProgram):
        # The pass gave back the graph only; its signature and state are those of the program it was given.
        program._graph_module = module
        return program
    return module


def _operators(program: Any) -> list[str]:
    return [f"{n.op} {n.target}" if n.op == "call_function" else n.op for n in as_program(program).nodes()]
