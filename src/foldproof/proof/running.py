"""Running a program on leaves and inputs that it may write to, and recording its writes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import EndlessLoop, FoldproofError
from foldproof.program import NO_ATTRIBUTES, Attribute, Outcome, Program, Watch, mark
from foldproof.proof.obligation import Tensors, identity, tied
from foldproof.shadow import Shadow, Undecided, WritesBorrowed
from foldproof.torch_internals import tree_flatten

_NOTHING = contextlib.nullcontext()


def failed(what: str, error: Exception) -> Undecided:
    """Return the exception for a program that raises by itself."""
    message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    part = re.match(r"There was no rule registered for (?:HigherOrderOperator|HOP) (\w+)", message)
    if part and isinstance(error, NotImplementedError):
        out = Undecided(f"no rule for {part[1]}, by which {what} runs a part of itself (as torch.cond does)")
    else:
        out = Undecided(f"{what} fails on these inputs: {type(error).__name__}: {message}")
    out.node = getattr(error, "node", None)
    return out


def run_copied(
    program: Program,
    which: str,
    leaves: Tensors,
    args: Any,
    kwargs: Any,
    watch: Watch | None = None,
    around: contextlib.AbstractContextManager[Any] = _NOTHING,
    attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
) -> Outcome:
    """Run on arguments that may be written to, and count writes to them among the effects.

    ``around`` is active while the program itself runs, on ``attributes`` that an earlier call left.

    Raises:
        Undecided: an operator has no rule, or the program itself raises.
    """
    contents, structure = tree_flatten((args, kwargs))
    given = {f"input {i}": t for i, t in enumerate(t for t in contents if isinstance(t, Tensor))}
    marks = {name: mark(t) for name, t in given.items()}
    # A write through `.data` changes no mark. On a shadow, the shadow records it; whole numbers are compared instead.
    plain = {name: t for name, t in {**leaves, **given}.items() if not isinstance(t, Shadow)}
    whole = {name: (t, t.clone()) for name, t in plain.items() if not t.dtype.is_floating_point}
    try:
        # Compiled parts run eagerly here: Dynamo would give up on shadows, and permanently, so that even the run on
        # ordinary tensors would not execute the compiled code.
        with torch.compiler.set_stance("force_eager"), around:
            outcome = program.run(leaves, args, kwargs, watch, attributes)
    except EndlessLoop as error:
        raise Undecided(f"the {which} program does not end on all inputs: {error}") from error
    except (Undecided, WritesBorrowed, FoldproofError):
        raise
    except Exception as error:
        raise failed(f"the {which} program", error) from error
    for name, t in given.items():
        if mark(t) != marks[name]:
            outcome.effects.setdefault(name, t)
    for name, (t, content) in whole.items():
        if not torch.equal(t, content):
            outcome.effects.setdefault(name, t)
    now, arranged = tree_flatten((args, kwargs))
    if arranged != structure or any(a is not b for a, b in zip(contents, now)):
        raise Undecided(f"the {which} program changes the lists or dicts that it is given, which is not compared")
    return outcome


def run_on_copies(
    program: Program,
    args: Any,
    kwargs: Any,
    of: Callable[[Tensor], Tensor] = Tensor.detach,
    watch: Watch | None = None,
) -> Outcome:
    """Run on copies ``of`` the program's own leaves, and on arguments that may be written to.

    Raises:
        Undecided: as `run_copied`.
    """
    leaves = tied(program.leaves, lambda name, leaf: of(leaf.tensor.detach()).clone())
    with torch.no_grad():
        return run_copied(program, "recorded", leaves, args, kwargs, watch)


def require_separate(program: Program, leaves: Tensors, written: Mapping[str, Tensor]) -> None:
    """Refuse writes to memory whose sharing differs between the program and its given leaves.

    Raises:
        Undecided: a written leaf shares memory in the program and not among ``leaves``, or the other way round, or it
            shares memory with an attribute that was not replaced. The run on these leaves does not show the effect of
            such a write.
    """
    for name in sorted(written.keys() & program.leaves.keys()):
        if program.leaves[name].aliased:
            raise Undecided(f"{name} is written to, and an attribute that is no buffer shares its memory")
    own = {n: leaf.tensor for n, leaf in program.leaves.items() if leaf.tensor.numel()}
    memory = {n: t.untyped_storage().data_ptr() for n, t in own.items() if not isinstance(t, Shadow)}
    for name in sorted(written.keys() & memory.keys()):
        for other in memory:
            shared, one = memory[other] == memory[name], leaves[other] is leaves[name]
            if (shared or one) and not (one and identity(own[other]) == identity(own[name])):
                raise Undecided(f"{name} and {other} share memory in one of the programs, and are written to")


def state_of(outcome: Outcome) -> dict[str, Tensor]:
    """Return the state that a call left in the program: leaves that it wrote to, and buffers that were None."""
    return {name: t for name, t in outcome.effects.items() if not name.startswith("input ")}


def leaves_state(outcome: Outcome) -> bool:
    """Return True if a next call may read what this one left behind."""
    return bool(state_of(outcome)) or any(not x.is_cache for x in outcome.attributes.values())


def state_after(leaves: Tensors, outcome: Outcome) -> dict[str, Tensor]:
    """Return the leaves of the next call: the written ones, under all names of a tensor, and the others unchanged."""
    state = {name: t.detach().clone() for name, t in state_of(outcome).items()}
    written = {id(leaves[name]): t for name, t in state.items() if name in leaves}
    return {**state, **{name: written.get(id(t), t) for name, t in leaves.items()}}


def idle_counters(first: Outcome, second: Outcome, leaves: Mapping[str, Tensor]) -> list[str]:
    """Return BatchNorm counters that only one program increments, though neither updates the statistics.

    Exports for quantization-aware training leave such counters behind; nobody reads them.
    """
    odd = first.effects.keys() ^ second.effects.keys()
    written = first.effects.keys() | second.effects.keys()
    statistics = {name: name.removesuffix("num_batches_tracked") + "running_mean" for name in odd}
    return sorted(n for n, mean in statistics.items() if mean != n + "running_mean" and mean in leaves.keys() - written)
