"""Proof obligations: two programs, their inputs, and the correspondence of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foldproof.claim import Held
from foldproof.errors import FoldproofError
from foldproof.layout import clone
from foldproof.program import Leaf, Program
from foldproof.torch_internals import is_traceable_wrapper_subclass, tree_leaves

Tensors = Mapping[str, Tensor]
Derive = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Sides:
    """*after* at some leaves of *before*: a program and its leaves, made anew for every sample point and trial."""

    after: Program
    leaves: Tensors
    names: Mapping[str, str] = field(default_factory=dict)
    """*before*'s names of leaves, by *after*'s names, for those that differ."""
    exact: frozenset[str] = frozenset()
    """Names of leaves that were computed from *before*'s without any rounding."""


@dataclass(frozen=True)
class ProofObligation:
    """The statement to prove: ``before`` and the program that ``after`` makes of its leaves are the same function.

    Attributes:
        before: the first program.
        after: a function from *before*'s leaves (real tensors or shadows; a complete mapping by name) to the second
            program with its leaves: shared ones, derived ones, and its own. A pass is run here.
        args: positional inputs of both programs.
        kwargs: keyword inputs of both programs.
        general: True if leaves other than the program's own may be asked for.
        remade: True if a pass makes ``after`` anew from other leaves, so that it has to be correct for those, too.
        computes: True if ``after`` computes with the leaves that it is given, and might write to them.
        by_value: True if rectifiers may follow the signs of values when nothing else proves the programs equal; see
            `foldproof.shadow.sample.Semantics`.
        derived: the second program's leaves that ``after`` computes from those that it is given.
        unmatched: the second program's floating-point leaves that are neither the first's nor derived: they are held at
            their values.
        held: values of the second program that are held besides these, with the reasons.
        notes: sentences for the verdict.
        untied: leaves without values that share memory, in words; they are read as independent variables.
        gradients: True if the owner records gradients when calling the programs.
        vanishing: places of outputs that are 0 in both programs by their residues, as the gradient of a bias before a
            batch normalization: their float64 results are rounding, and nothing to compare.
    """

    before: Program
    after: Callable[[Tensors], Sides]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    general: bool
    remade: bool = False
    computes: bool = True
    by_value: bool = False
    derived: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    notes: tuple[str, ...] = ()
    untied: str | None = None
    gradients: bool = field(default_factory=torch.is_grad_enabled)
    vanishing: frozenset[int] = frozenset()

    def other(self, leaves: Tensors) -> Sides:
        """Return ``after`` at ``leaves``, which it does not write to."""
        return self.after(copied_leaves(leaves) if self.computes else leaves)

    @property
    def input_tensors(self) -> list[Tensor]:
        """The tensors among the inputs, in order."""
        return [t for t in tree_leaves((self.args, dict(self.kwargs))) if isinstance(t, Tensor)]

    @property
    def weightless(self) -> bool:
        """True if the first program has parameters without values."""
        return any(leaf.valueless for leaf in self.before.leaves.values())

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes of all inputs, as one string."""
        return (" ".join(str(tuple(t.shape)) for t in self.input_tensors),)

    @property
    def overlapping(self) -> str | None:
        """Leaves that share memory without being the same tensor, in words: writes to them cannot be followed."""
        if self.untied is not None:
            return self.untied
        seen: dict[int, tuple[str, Tensor]] = {}
        for name, leaf in self.before.leaves.items():
            if not leaf.tensor.numel():
                continue
            other = seen.setdefault(leaf.tensor.untyped_storage().data_ptr(), (name, leaf.tensor))
            if identity(other[1]) != identity(leaf.tensor):
                return f"{other[0]} and {name} share memory"
        return None


def match_leaves(before: Mapping[str, Leaf], after: Mapping[str, Leaf]) -> tuple[dict[str, str], list[str]]:
    """Match leaves of *after* to leaves of *before*: the same tensor, or the same name or place with equal content.

    Returns (after's name → before's name, notes). A leaf of equal name and different content does *not* match: a pass
    that folds puts a new tensor under the old name. Two different leaves of *before* never match one tensor of *after*.
    """
    matched: dict[str, str] = {}
    notes: list[str] = []
    by_identity: dict[Any, list[str]] = {}
    for name, leaf in before.items():
        by_identity.setdefault(identity(leaf.tensor), []).append(name)
    taken: dict[Any, str] = {}

    def accept(name: str, source: str) -> None:
        """Add a match, unless *after* ties leaves that *before* does not."""
        key = identity(after[name].tensor)
        first = taken.setdefault(key, source)
        if not after[name].tensor.numel() or identity(before[first].tensor) == identity(before[source].tensor):
            matched[name] = source
        else:
            notes.append(f"the second program ties {name} to another parameter, which the first does not")

    for name, leaf in after.items():
        same = by_identity.get(identity(leaf.tensor), []) if leaf.tensor.numel() else []
        if same:
            accept(name, name if name in same else same[0])
        elif name in before and equal_content(before[name].tensor, leaf.tensor):
            accept(name, name)
    known = set(matched.values())
    free: dict[Any, list[str]] = {}
    for name in before:
        if name not in known:
            free.setdefault(_head(before[name].tensor), []).append(name)
    for name, leaf in after.items():
        if name in matched:
            continue
        alike = free.get(_head(leaf.tensor), [])
        twin = next((n for n in alike if equal_content(before[n].tensor, leaf.tensor)), None)
        if twin is not None:
            accept(name, twin)
            alike.remove(twin)
            notes.append(f"{name} of the second program is read as {twin} of the first, which has equal content")
    return matched, notes


def identity(x: Tensor) -> tuple[Any, ...]:
    """Return a key that is equal for the same elements of the same memory."""
    return (x.untyped_storage().data_ptr(), x.storage_offset(), tuple(x.shape), x.stride(), x.dtype)


def require_plain(program: Program) -> None:
    """Refuse programs with leaves that are made of other tensors.

    Raises:
        FoldproofError: a parameter or buffer is made of other tensors, as torchao's quantized weights are.
    """
    for name, leaf in program.leaves.items():
        if is_traceable_wrapper_subclass(leaf.tensor):
            raise FoldproofError(
                f"{name} is of type {type(leaf.tensor).__name__}, which is made of other tensors; give the model's"
                " torch.export program, which holds those"
            )


def _head(x: Tensor) -> tuple[Any, ...]:
    """Return a cheap key that is equal for tensors of equal content, and rarely equal for others."""
    return (x.shape, x.dtype, *(repr(v + 0) for v in x.detach().flatten()[:8].tolist()))


def equal_content(a: Tensor, b: Tensor) -> bool:
    """True for the same shape, dtype and bits (nan equals nan)."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    if not a.dtype.is_floating_point:
        return bool(torch.equal(a, b))
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def copied_leaves(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return clones; leaves that are one tensor stay one."""
    memo = {id(t): clone(t.detach()) for t in leaves.values()}
    return {name: memo[id(t)] for name, t in leaves.items()}


def tied(leaves: Mapping[str, Leaf], make: Callable[[str, Leaf], Tensor]) -> dict[str, Tensor]:
    """Return one tensor from ``make`` for each leaf; leaves that are one tensor (tied parameters) stay one."""
    made: dict[Any, Tensor] = {}
    out = {}
    for name, leaf in leaves.items():
        key = identity(leaf.tensor) if leaf.tensor.numel() else name
        if key not in made:
            made[key] = make(name, leaf)
        out[name] = made[key]
    return out
