"""The first pair of modules whose outputs part: for programs without a graph, or whose graphs tell less.

Both programs run on shadows of one sample point. A call of a module is read as a step from its first operand to its
first result. Values are compared by digests of their residues that do not depend on shape or order: one side may keep
the rows of a projection in another order, or another layout, and be right. Two modules part if they get the same value
and give different ones. A call whose result is anywhere in the other program is right, and so are those before it,
whose results it mostly depends on. The result helps the reader, and no verdict depends on it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.program import Program
from foldproof.proof.attempt import lending, run_both
from foldproof.proof.obligation import ProofObligation, Sides, Tensors
from foldproof.proof.variation import vary
from foldproof.shadow import SamplePoint, Semantics, Shadow, Undecided, embed_constant, is_number
from foldproof.shadow.call import value_of
from foldproof.thresholds import MAX_ALIKE, MAX_PARTING_DISTANCE
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
    numbers: tuple[Tensor | None, Tensor | None]
    """Both values as sorted numbers."""
    inner: bool
    """True for a module without modules in it."""

    def steps_beside(self, other: _Call) -> bool:
        """Return True if both get the same value, and give values of the same size."""
        if self.given is None or self.made is None or other.made is None:
            return False
        same = self.given == other.given or _distance(self.numbers[0], other.numbers[0]) <= MAX_ALIKE
        return same and self.made[0] == other.made[0]


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
                numbers = _sorted_numbers((args, kwargs)), _sorted_numbers(out)
            calls.append(_Call(path, type(module).__name__, given, made, numbers, not [*module.children()]))

        handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_pair(ours: list[_Call], theirs: list[_Call]) -> Difference | None:
    """Return the first pair that parts by much or, if there is none, that parts at all."""
    return _find_pair(ours, theirs, _is_near) or _find_pair(ours, theirs, lambda one, other: False)


def _find_pair(ours: list[_Call], theirs: list[_Call], near: Callable[[_Call, _Call], bool]) -> Difference | None:
    known = {call.made: call for call in reversed(theirs)}
    known.pop(None, None)
    twins = [known.get(a.made) or next((b for b in theirs if near(a, b)), None) for a in ours]
    right = max((i for i, twin in enumerate(twins) if twin is not None), default=-1)
    pairs = list[tuple[int, _Call, _Call]]()
    for i, call in enumerate(ours):
        candidates = [c for c in reversed(theirs) if c.steps_beside(call)]  # outer modules before inner ones
        if twins[i] is None and candidates:
            second = min(candidates, key=lambda c: (c.inner != call.inner, c.kind != call.kind))
            pairs.append((i, call, second))
    # Inner modules a little apart are meant to be equal. Others may be right, if what follows is.
    inner = [(i, a, b) for i, a, b in pairs if a.inner and b.inner and near is _is_near]
    close = [(i, a, b) for i, a, b in inner if _distance(a.numbers[1], b.numbers[1]) < MAX_PARTING_DISTANCE]
    later = [pair for pair in pairs if pair[0] > right]
    chosen = close[:1] or sorted(later[:-1], key=lambda pair: pair[1].inner != pair[2].inner)[:1] or later
    if not chosen:
        return None
    i, first, second = chosen[0]
    equal = [(ours[j].path, twin.path) for j, twin in enumerate(twins[:i]) if twin is not None]
    frontier = tuple((_named(a), _named(b)) for a, b in equal[-1:])
    after = DifferingNode(_named(second.path), second.kind, None)
    return Difference(_named(first.path), first.kind, None, after=after, frontier=frontier)


def _is_near(one: _Call, other: _Call) -> bool:
    """Return True if rounding explains the difference of the given values; they may be small all the same."""
    return _distance(one.numbers[1], other.numbers[1]) <= MAX_ALIKE


def _distance(a: Tensor | None, b: Tensor | None) -> float:
    """Return the largest distance of sorted numbers, relative to the largest of them."""
    if a is None or b is None or a.shape != b.shape or not bool(a.isfinite().all() and b.isfinite().all()):
        return math.inf
    largest = float(a.abs().max())
    return float((a - b).abs().max()) / largest if largest else math.inf


def _named(path: str) -> str:
    return path or "the whole model"


def _first_tensor(values: Any) -> Tensor | None:
    """Return the first tensor of real numbers among ``values``, or else the first tensor."""
    tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.layout is torch.strided and x.numel()]
    return next((x for x in tensors if is_number(x.dtype)), tensors[0] if tensors else None)


def _sorted_numbers(values: Any) -> Tensor | None:
    x = _first_tensor(values)
    if x is None or not x.is_floating_point() or x.numel() > _MAX_SORTED:
        return None
    made: Tensor = value_of(x).detach().double().flatten().sort()[0]
    return made


def _digest(point: SamplePoint, values: Any) -> Digest | None:
    """Return a digest of a tensor among ``values``."""
    x = _first_tensor(values)
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


_MAX_SORTED = 1 << 22
"""Largest number of elements of a value that is sorted."""
_MULTIPLIER = 0x5851F42D4C957F2D
"""An odd number (Knuth's, for linear congruential generators), by which 64-bit integers are mixed."""
