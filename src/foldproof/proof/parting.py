"""The first pair of modules whose outputs part: for programs without a graph, or whose graphs tell less.

Both programs run on shadows of one sample point. A call of a module is read as a step from its first operand to its
first result. Values are compared by digests of their residues that do not depend on shape or order: one side may keep
the rows of a projection in another order, or another layout, and be right. Two modules part if they get the same value
and give different ones. A call whose result is anywhere in the other program is right, and so are those before it,
whose results it mostly depends on. The result helps the reader, and no verdict depends on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.program import Program
from foldproof.proof.attempt import lending, run_both
from foldproof.proof.obligation import ProofObligation, Sides, Tensors
from foldproof.proof.variation import vary
from foldproof.shadow import SamplePoint, Semantics, Shadow, Undecided, embed_constant, is_number
from foldproof.torch_internals import disable_current_modes, tree_leaves
from foldproof.verdict import Difference, DifferingNode

Digest = tuple[int, int]
"""The number of elements, and a sum of hashes of each."""


@dataclass(frozen=True)
class _Call:
    """A call of a module: its path, its class, the first value that it gets, and the first that it gives."""

    path: str
    kind: str
    given: Digest | None
    made: Digest | None
    inner: bool
    """True for a module without modules in it."""

    def steps_beside(self, other: _Call) -> bool:
        """Return True if both get the same value, and give values of the same size."""
        if self.given is None or self.made is None or other.made is None:
            return False
        return self.given == other.given and self.made[0] == other.made[0]


def parting_modules(obligation: ProofObligation, seed: int, readings: Sequence[Semantics]) -> Difference | None:
    """Return the first modules that part, in the order of calls; None if there are none, or a program has no modules.

    ``readings`` are tried until one of them runs.
    """
    for semantics in readings:
        calls = _run(obligation, SamplePoint(seed, 2, semantics))
        if calls is not None:
            return _first_pair(*calls)
    return None


def _run(obligation: ProofObligation, point: SamplePoint) -> tuple[list[_Call], list[_Call]] | None:
    """Return the calls of both programs; None if they do not run at this point."""
    ours, theirs = list[_Call](), list[_Call]()
    with contextlib.ExitStack() as hooks:
        hooks.enter_context(_noting(obligation.before, point, ours))

        def after(leaves: Tensors) -> Sides:
            sides = obligation.after(leaves)
            theirs.clear()
            hooks.enter_context(_noting(sides.after, point, theirs))
            return sides

        def run(lent: bool) -> None:
            ours.clear()
            run_both(replace(obligation, after=after), point, vary(obligation, obligation.general), lent)

        try:
            with torch.no_grad():
                lending(obligation, run)
        except Undecided:
            return None
    return ours, theirs


@contextlib.contextmanager
def _noting(program: Program, point: SamplePoint, calls: list[_Call]) -> Iterator[None]:
    """Note the calls of a program's modules, inner ones first."""
    handles = []
    for path, module in program.modules().items():

        def note(module: nn.Module, args: Any, kwargs: Any, out: Any, path: str = path) -> None:
            with disable_current_modes():
                given, made = _digest(point, (args, kwargs)), _digest(point, out)
            calls.append(_Call(path, type(module).__name__, given, made, not [*module.children()]))

        handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_pair(ours: list[_Call], theirs: list[_Call]) -> Difference | None:
    known = {call.made: call for call in reversed(theirs)}
    known.pop(None, None)
    right = [i for i, call in enumerate(ours) if call.made in known]
    pairs = list[tuple[_Call, _Call]]()
    for call in ours[right[-1] + 1 if right else 0 :]:
        candidates = [c for c in reversed(theirs) if c.steps_beside(call)]  # outer modules before inner ones
        if candidates:
            pairs.append((call, min(candidates, key=lambda c: (c.inner != call.inner, c.kind != call.kind))))
    if not pairs:
        return None
    first, second = min(pairs[:-1], key=lambda pair: pair[0].inner != pair[1].inner, default=pairs[-1])
    frontier = tuple((_named(ours[i].path), _named(known[ours[i].made].path)) for i in right[-1:])
    after = DifferingNode(_named(second.path), second.kind, None)
    return Difference(_named(first.path), first.kind, None, after=after, frontier=frontier)


def _named(path: str) -> str:
    return path or "the whole model"


def _digest(point: SamplePoint, values: Any) -> Digest | None:
    """Return a digest of the first tensor of real numbers among ``values``, or else of the first tensor."""
    tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.layout is torch.strided and x.numel()]
    x = next((x for x in tensors if is_number(x.dtype)), tensors[0] if tensors else None)
    if x is None:
        return None
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    if is_number(x.dtype):
        try:
            parts = list((x.residue if isinstance(x, Shadow) else embed_constant(point, x)).parts)
        except Undecided:
            return None
    else:
        parts = [x.value if isinstance(x, Shadow) else x]
    mixed = torch.zeros(x.numel(), dtype=torch.int64)
    for part in parts:
        mixed = (mixed ^ part.flatten().cpu().to(torch.int64)) * _MULTIPLIER
        mixed = mixed ^ (mixed >> 29)
    return x.numel(), int((mixed * _MULTIPLIER).sum())


_MULTIPLIER = 0x5851F42D4C957F2D
"""An odd number (Knuth's, for linear congruential generators), by which 64-bit integers are mixed."""
