"""The exact half of a proof: run both programs on the shadows of one draw and compare residues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from foldproof.errors import FoldproofError
from foldproof.program import Leaf, Outcome, Program, Watch, copied, mark
from foldproof.proof.question import Question, Tensors, copied_leaves, identity, tied
from foldproof.shadow import (
    Deterministic,
    Draw,
    Factories,
    Reading,
    Shadow,
    Undecided,
    WritesBorrowed,
    draw_variable,
    embed_constant,
)
from foldproof.shadow.call import value_of


@dataclass
class Attempt:
    """One comparison at one draw. ``mismatch`` says where the outputs differ; ``reason`` why it could not be made."""

    draw: Draw
    mismatch: str | None = None
    structural: bool = False
    """The mismatch is one of structure or of plain values: it needs no residues to be seen."""
    written: str | None = None
    """What was written to differently, where that is the mismatch."""
    reason: str | None = None
    values: tuple[list[Any], list[Any]] = ((), ())  # type: ignore[assignment]
    """The outputs' values, of both programs."""
    node: Any = None
    numbers: tuple[frozenset[float], frozenset[float]] = (frozenset(), frozenset())
    roundings: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    """Parameters that either program makes whole numbers of."""
    leaves: Tensors = field(default_factory=dict)
    """Of the second program, as it was run."""
    elements: int = 0

    @property
    def equal(self) -> bool:
        return self.mismatch is None and self.reason is None


def attempt(
    question: Question,
    seed: int,
    k: int,
    parameters_vary: bool,
    reading: Reading = Reading(),  # noqa: B008
) -> Attempt:
    """Run both programs on one draw of ``k`` primes, read as ``reading`` says; compare outputs and effects.

    With ``parameters_vary`` every floating-point parameter and buffer gets random residues; else the exact residues
    of its value. Floating-point inputs always get random ones; integer and boolean tensors are held at their values.
    """
    outcome = Attempt(Draw(seed, k, reading))
    try:
        with torch.no_grad():
            first, second = run_both(question, outcome, parameters_vary)
            outcome.elements = sum(t.numel() for t in first.outputs if isinstance(t, Tensor))
            outcome.values = ([value_of(t) for t in first.outputs], [value_of(t) for t in second.outputs])
            _compare(outcome, first, second)
    except Undecided as error:
        outcome.reason, outcome.node = str(error), error.node
    return outcome


def scout(question: Question, seed: int, parameters_vary: bool, reading: Reading = Reading()) -> Attempt:  # noqa: B008
    """Run *before* with one prime, to learn how large its polynomials are; nothing is compared."""
    found = Attempt(Draw(seed, 1, reading))
    try:
        with torch.no_grad():
            first, _ = _run(question, found, parameters_vary, (None, None), both=False)
            for t in (*first.outputs, *first.effects.values()):
                if isinstance(t, Shadow):
                    found.draw.observe(t.residue.size)
    except Undecided as error:
        found.reason, found.node = str(error), error.node
    return found


def run_both(
    question: Question, outcome: Attempt, parameters_vary: bool, watch: tuple[Watch | None, Watch | None] = (None, None)
) -> tuple[Outcome, Outcome]:
    """Run both programs on the shadows of one draw.

    Raises:
        Undecided: an operator has no rule, or a program itself raises.
    """
    first, second = _run(question, outcome, parameters_vary, watch, both=True)
    assert second is not None
    return first, second


def _run(
    question: Question,
    outcome: Attempt,
    parameters_vary: bool,
    watch: tuple[Watch | None, Watch | None],
    both: bool,
) -> tuple[Outcome, Outcome | None]:
    """Run *before* and, if ``both`` are wanted, *after*.

    The leaves' memory (large, and nearly never written to) is lent to the programs; if one of them, or a pass, does
    write to it, all is done again on copies.
    """
    for lent in (True, False):
        draw = outcome.draw = Draw(outcome.draw.seed, len(outcome.draw.fields), outcome.draw.reading)
        leaves, inputs = _shadows_of(question, draw, parameters_vary, lent)
        draw.take_numbers()  # those of the parameters are no constants of a program
        ours = copied_leaves if not lent else _lent
        try:
            with Factories(draw):
                args, kwargs = copied(inputs)
                with Deterministic():
                    first = run_copied(question.before, "first", ours(leaves), args, kwargs, watch[0])
                numbers, roundings = draw.take_numbers(), draw.take_roundings()
                if not both:
                    return first, None
                other = question.after(ours(leaves))
                draw.take_numbers()
                args, kwargs = copied(inputs)
                with Deterministic():
                    second = run_copied(other.after, "second", other.leaves, args, kwargs, watch[1])
                _require_separate(question.before, leaves, first.effects)
                _require_separate(other.after, other.leaves, second.effects)
                second.effects = {other.names.get(name, name): t for name, t in second.effects.items()}
                if any(name.endswith("num_batches_tracked") for name in first.effects):
                    draw.held.setdefault("num_batches_tracked")  # of which a momentum may be made
                for name in idle_counters(first, second, leaves):
                    question.notes.append(f"only one program counts in {name}, which moves no statistics")
                    (first if name in first.effects else second).effects.pop(name)
                _complete(first, second, leaves | _numbered(inputs))
            outcome.numbers = (numbers, draw.take_numbers())
            outcome.roundings = (roundings, draw.take_roundings())
            outcome.leaves = other.leaves
            return first, second
        except WritesBorrowed:
            if question.overlapping:
                raise Undecided(f"{question.overlapping}, and one of them is written to") from None
    raise AssertionError("copies are not lent")


def _shadows_of(
    question: Question, draw: Draw, parameters_vary: bool, lent: bool
) -> tuple[dict[str, Tensor], tuple[Any, Any]]:
    """Shadows of the leaves, by name, and of (args, kwargs)."""
    leaves = tied(question.before.leaves, lambda name, leaf: _shadow_leaf(draw, leaf, parameters_vary, lent))
    return leaves, _shadow_inputs(draw, (question.args, dict(question.kwargs)))


def _lent(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same shadows; of integer tensors, which are none, copies."""
    shadows = {name: t for name, t in leaves.items() if isinstance(t, Shadow)}
    others: dict[str, Tensor] = copied_leaves({name: t for name, t in leaves.items() if name not in shadows})
    return others | shadows


def failed(what: str, error: Exception) -> Undecided:
    """The reason to give where a program raises on its own."""
    message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    out = Undecided(f"{what} fails on these inputs: {type(error).__name__}: {message}")
    out.node = getattr(error, "node", None)
    return out


def run_copied(
    program: Program, which: str, leaves: Tensors, args: Any, kwargs: Any, watch: Watch | None = None
) -> Outcome:
    """Run on arguments that are ours to write to, and count writes to them among the effects.

    Raises:
        Undecided: an operator has no rule, or the program itself raises.
    """
    contents, structure = tree_flatten((args, kwargs))
    given = {f"input {i}": t for i, t in enumerate(t for t in contents if isinstance(t, Tensor))}
    marks = {name: mark(t) for name, t in given.items()}
    # A write through `.data` leaves no mark. A shadow's is one to the shadow itself; whole numbers are looked at.
    plain = {name: t for name, t in {**leaves, **given}.items() if not isinstance(t, Shadow)}
    whole = {name: (t, t.clone()) for name, t in plain.items() if not t.dtype.is_floating_point}
    try:
        # What is compiled inside runs eagerly here: Dynamo would give up on shadows, and then for good, so that not
        # even the run as it is would see what the compiled code does.
        with torch.compiler.set_stance("force_eager"):
            outcome = program.run(leaves, args, kwargs, watch)
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


def _require_separate(program: Program, leaves: Tensors, written: Mapping[str, Tensor]) -> None:
    """
    Raises:
        Undecided: a leaf is written to that is one with another in the program and not among ``leaves``, or the other
            way round, or that is read by an attribute that was not replaced, so that the run on these does not show
            what the write does.
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


def _shadow_leaf(draw: Draw, leaf: Leaf, vary: bool, lent: bool) -> Tensor:
    value = leaf.tensor.detach()
    if not value.dtype.is_floating_point:
        return value.clone()
    if not lent:
        value = value.clone()
    varies = vary and not leaf.constant
    shadow = Shadow(
        value, draw_variable(draw, value, data=False, lent=lent) if varies else embed_constant(draw, value, lent=lent)
    )
    shadow.residue.cell.borrowed = lent
    return shadow


def _shadow_inputs(draw: Draw, inputs: Any) -> Any:
    def shadow(x: Any) -> Any:
        if isinstance(x, Tensor) and x.dtype.is_complex:
            raise Undecided("inputs are complex, and there are no residues of complex numbers")
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            return x
        value = x.detach().clone()
        return Shadow(value, draw_variable(draw, value, data=True))

    return tree_map(shadow, inputs)


def _numbered(inputs: Any) -> dict[str, Tensor]:
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    return {f"input {i}": t for i, t in enumerate(tensors)}


def idle_counters(first: Outcome, second: Outcome, leaves: Mapping[str, Tensor]) -> list[str]:
    """Counters of BatchNorm that one program only goes on with, though both leave the statistics as they are.

    Exports for quantization-aware training leave them behind; nobody reads them.
    """
    odd = first.effects.keys() ^ second.effects.keys()
    written = first.effects.keys() | second.effects.keys()
    statistics = {name: name.removesuffix("num_batches_tracked") + "running_mean" for name in odd}
    return sorted(n for n, mean in statistics.items() if mean != n + "running_mean" and mean in leaves.keys() - written)


def _complete(first: Outcome, second: Outcome, originals: Mapping[str, Tensor]) -> None:
    """What one program writes to and the other does not, the other leaves as it was."""
    for one, other in ((first, second), (second, first)):
        for name in other.effects.keys() - one.effects.keys():
            if name in originals:
                one.effects[name] = originals[name]


def _compare(outcome: Attempt, first: Outcome, second: Outcome) -> None:
    """Set where the outcomes differ, in words."""
    if first.structure != second.structure or len(first.outputs) != len(second.outputs):
        outcome.mismatch = (
            f"outputs are put together differently: {len(first.outputs)} ({first.structure}) before,"
            f" {len(second.outputs)} ({second.structure}) after"
        )
        outcome.structural = True
        return
    if first.effects.keys() != second.effects.keys():
        odd = sorted(first.effects.keys() ^ second.effects.keys())
        raise Undecided(f"one program writes to {odd[0]}, which the other does not have")
    outputs = [(f"output {i}", None, a, b) for i, (a, b) in enumerate(zip(first.outputs, second.outputs))]
    effects = [(f"what is written to {n}", n, first.effects[n], second.effects[n]) for n in sorted(first.effects)]
    for what, written, a, b in (*outputs, *effects):
        plain = not (isinstance(a, Tensor) and isinstance(b, Tensor) and _alike(a, b))
        found = _compare_plain(a, b) if plain else _compare_tensors(outcome.draw, a, b)
        if found:
            outcome.mismatch, outcome.written = f"{what}: {found}", written
            outcome.structural = plain and not _may_be_rounding(outcome.draw, a, b)
            return


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether shapes are the same, and so are dtypes, but for the precision of floating-point numbers."""
    return a.shape == b.shape and (a.dtype == b.dtype or (a.is_floating_point() and b.is_floating_point()))


def _may_be_rounding(draw: Draw, a: Any, b: Any) -> bool:
    """Whether rounding may make the difference of plain values: in Python floats, or in what counts true elements."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        counted = a.ndim == b.ndim and a.dtype == b.dtype
    else:
        counted = type(a) is type(b) is int
    return (isinstance(a, float) and isinstance(b, float)) or (counted and bool(draw.branch or draw.escapes))


def _compare_plain(a: Any, b: Any) -> str | None:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape == b.shape:
            return f"{a.dtype} before, {b.dtype} after"
        return f"shape {tuple(a.shape)} before, {tuple(b.shape)} after"
    if a is b:
        return None
    plain = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
    if (isinstance(a, plain) and isinstance(b, plain)) or isinstance(a, Tensor) or isinstance(b, Tensor):
        same = type(a) is type(b) and a == b
        return None if same else f"{_brief(a)} before, {_brief(b)} after"
    raise Undecided(f"an output is a {type(a).__name__}, which is neither a tensor nor a plain value")


def _brief(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)


def _compare_tensors(draw: Draw, a: Tensor, b: Tensor) -> str | None:
    """How tensors of one shape differ: by residue, where either carries one, else by value; None if they don't."""
    if isinstance(a, Shadow) or isinstance(b, Shadow):
        x, y = (t.residue if isinstance(t, Shadow) else embed_constant(draw, t) for t in (a, b))
        draw.observe(x.size)
        draw.observe(y.size)
        wrong = torch.zeros(a.shape, dtype=torch.bool, device=a.device)
        for p, q in zip(x.parts, y.parts):
            wrong |= p != q
    else:
        wrong = ~((a == b) | (a.isnan() & b.isnan()))
    count = int(wrong.sum())
    return f"{count} of {a.numel()} elements differ" if count else None
