"""`prove_pass`: an unmodified compiler pass, run on shadows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.program import Leaf, Program, as_program, copied
from foldproof.program.state import Kept
from foldproof.proof.decide import decide_all
from foldproof.proof.floats import redrawn_leaves
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import (
    ProofObligation,
    Sides,
    Tensors,
    copied_leaves,
    equal_content,
    require_plain,
    tied,
)
from foldproof.proof.running import failed
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.shadow import Factories, SamplePoint, Shadow, Undecided, WritesBorrowed, draw_variable, is_number
from foldproof.shadow.call import value_of
from foldproof.torch_internals import disable_current_modes, set_graph
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
    copy = first.with_leaves(tied(first.leaves, lambda name, leaf: copied(leaf.tensor)))
    old = _snapshot(copy)
    plain = _snapshot(_apply(pass_fn, copy))
    if must_change and plain == old:
        return Verdict(Kind.UNDECIDED, UNCHANGED)

    @functools.cache
    def alike_elsewhere() -> bool:
        return _alike_elsewhere(pass_fn, first)

    def sides(leaves: Tensors) -> Sides:
        after = _on_shadows(pass_fn, first, leaves) if _shadowed(leaves) else _apply(pass_fn, first.with_leaves(leaves))
        if _shadowed(leaves) and (_snapshot(after) != plain or not alike_elsewhere()):
            raise Undecided("the pass acts differently on shadows than on the program's own tensors")
        second = as_program(after)
        return Sides(second, {name: leaf.tensor for name, leaf in second.leaves.items()})

    obligations = [
        ProofObligation(first, sides, args, named, True, remade=True)
        for args, named in sampled_inputs(program, as_inputs(inputs), kwargs or {})
    ]
    verdict = decide_all(obligations, seed, progress)
    if plain == old and verdict.kind is Kind.PROVED:
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


def _shadowed(leaves: Tensors) -> bool:
    return any(isinstance(t, Shadow) for t in leaves.values())


def _alike_elsewhere(pass_fn: Pass, program: Program) -> bool:
    """True if the pass acts the same on shadows as on ordinary tensors at other parameters, too."""
    with torch.no_grad(), disable_current_modes():  # new tensors belong to the point below, or to none
        drawn = redrawn_leaves(program.leaves, torch.Generator().manual_seed(1), 4.0, 1.0)
        try:
            plain = _snapshot(_apply(pass_fn, program.with_leaves(copied_leaves(drawn))))
        except Exception as error:
            log_caught(error, "running a pass at other parameters")
            return True  # there is nothing to compare with
        point = SamplePoint(0, 1)

        def shadow(name: str, leaf: Leaf) -> Tensor:
            value = copied(drawn[name])
            return Shadow(value, draw_variable(point, value, data=False)) if is_number(value.dtype) else value

        leaves = tied(program.leaves, shadow)
        with Factories(point):
            made = _on_shadows(pass_fn, program, leaves)
        return _snapshot(made) == plain


def _on_shadows(pass_fn: Pass, program: Program, leaves: Tensors) -> Any:
    try:
        return _apply(pass_fn, program.with_leaves(leaves))
    except (Undecided, WritesBorrowed, FoldproofError):
        raise
    except Exception as error:
        raise failed("the pass", error) from error


@dataclass(frozen=True)
class _Snapshot:
    """The result of a pass: its graph, line by line, and the values of its leaves, which shadows must not change."""

    graph: tuple[str, ...]
    values: dict[str, Tensor]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Snapshot) or self.graph != other.graph or self.values.keys() != other.values.keys():
            return False
        return all(equal_content(value, other.values[name]) for name, value in self.values.items())


def _snapshot(made: Any) -> _Snapshot:
    program = as_program(made)
    values = {name: value_of(leaf.tensor).detach().clone() for name, leaf in program.leaves.items()}
    lines = [f"{n.op} {n.target} {n.args} {n.kwargs}" for n in program.nodes()]
    if isinstance(made, nn.Module):
        lines += [_described(m) for m in made.modules()]
    return _Snapshot(tuple(lines), values)


def _described(module: nn.Module) -> str:
    """Return a module's class and settings, and the numbers of its hooks."""
    held = sorted((k, v) for k, v in module.__dict__.items() if isinstance(v, (bool, int, float, str, tuple)))
    hung = {k: len(v) for k, v in module.__dict__.items() if k.endswith("_hooks") and v}
    children = [name for name, _ in module.named_children()]
    return f"{type(module).__name__} {held} {hung} {children} {'forward' in module.__dict__}"
