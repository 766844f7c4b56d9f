"""Second programs that are made anew from the first, at whatever leaves are asked for: by a pass, or by a conversion.

The pass or conversion runs on shadows, so that its weights remain functions of the given ones. It has to act on shadows
as on ordinary tensors: the programs that it makes are compared, graph and values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.digest import digest
from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.memory import release
from foldproof.program import Leaf, Program, as_program, copied
from foldproof.proof.floats import redrawn_leaves
from foldproof.proof.obligation import Sides, Tensors, copied_leaves, identity, tied
from foldproof.proof.running import failed
from foldproof.shadow import Factories, SamplePoint, Shadow, Undecided, WritesBorrowed, draw_variable, is_number
from foldproof.shadow.call import value_of
from foldproof.torch_internals import disable_current_modes


@dataclass(frozen=True)
class Remade:
    """The second programs that ``make`` makes of copies of the first one, which is an argument as its owner has it.

    Attributes:
        first: the first program.
        make: a function of a copy of the program with other tensors, which returns the second program.
        what: the name of ``make`` in sentences: "the pass".
        names: the first program's names of the second one's leaves, for those that differ.
        exact: names of the second one's leaves that ``make`` computes without any rounding.
        made: the second program at the first one's own tensors, if it was made already and nobody writes to it.
    """

    first: Program
    make: Callable[[Any], Any]
    what: str
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    exact: frozenset[str] = frozenset()
    made: Any = None

    @functools.cached_property
    def given(self) -> Snapshot:
        """The first program."""
        return snapshot(self._copy())

    @functools.cached_property
    def plain(self) -> Snapshot:
        """The second program at the first one's own tensors."""
        with disable_current_modes():
            return snapshot(self.make(self._copy()) if self.made is None else self.made)

    def _copy(self) -> Any:
        return self.first.with_leaves(tied(self.first.leaves, lambda name, leaf: copied(leaf.tensor)))

    def sides(self, leaves: Tensors) -> Sides:
        """Return the second program at these leaves, of which only shadows may be written to.

        Raises:
            Undecided: it is made differently on shadows than on ordinary tensors, or that raises.
        """
        if any(isinstance(t, Shadow) for t in leaves.values()):
            alike = self._alike_elsewhere  # before another program takes memory
            release(leaves.values(), modules=True)
            after = self._made_at(leaves)
            if not alike or snapshot(after) != self.plain:
                raise Undecided(f"{self.what} acts differently on shadows than on the program's own tensors")
        elif self.made is not None and self._are_own(leaves):
            after = self.made
        else:
            after = self._made_at(copied_leaves(leaves))
        second = as_program(after)
        return Sides(second, {name: leaf.tensor for name, leaf in second.leaves.items()}, self.names, self.exact)

    def _are_own(self, leaves: Tensors) -> bool:
        return all(identity(leaf.tensor) == identity(leaves[name]) for name, leaf in self.first.leaves.items())

    def _made_at(self, leaves: Tensors) -> Any:
        try:
            return self.make(self.first.with_leaves(leaves))
        except (Undecided, WritesBorrowed, FoldproofError):
            raise
        except Exception as error:
            raise failed(self.what, error) from error

    @functools.cached_property
    def _alike_elsewhere(self) -> bool:
        """True if ``make`` acts the same on shadows as on ordinary tensors at other parameters, too."""
        with torch.no_grad(), disable_current_modes():  # new tensors belong to the point below, or to none
            drawn = redrawn_leaves(self.first.leaves, torch.Generator().manual_seed(1), 4.0, 1.0)
            made, failure = None, None
            try:
                made = self._snapshot_on_shadows(drawn)
            except (Undecided, FoldproofError) as error:
                failure = error
            try:
                plain = snapshot(self.make(self.first.with_leaves(self._own_copies(drawn))))
            except Exception as error:
                log_caught(error, f"running {self.what} at other parameters")
                return True  # there is nothing to compare with
            if failure is not None:
                raise failure
            return plain == made

    def _own_copies(self, drawn: Tensors) -> Tensors:
        """Return drawn leaves, which nobody reads any more, and copies of those that are the program's own."""

        def own(name: str, leaf: Leaf) -> Tensor:
            x = drawn[name]
            return copied(x) if x.untyped_storage().data_ptr() == leaf.tensor.untyped_storage().data_ptr() else x

        return tied(self.first.leaves, own)

    def _snapshot_on_shadows(self, values: Tensors) -> Snapshot:
        """Return a snapshot of the second program at shadows of these values, which are copied if it writes to them."""
        point = SamplePoint(0, 1)

        def made(lent: bool) -> Snapshot:
            def shadow(name: str, leaf: Leaf) -> Tensor:
                value = values[name] if lent and is_number(leaf.tensor.dtype) else copied(values[name])
                if not is_number(value.dtype):
                    return value
                residue = draw_variable(point, value, data=False, lent=lent)
                residue.cell.borrowed = lent
                return Shadow(value, residue)

            with Factories(point):
                return snapshot(self._made_at(tied(self.first.leaves, shadow)))

        try:
            return made(True)
        except WritesBorrowed:
            return made(False)


@dataclass(frozen=True)
class Snapshot:
    """A program: its graph, line by line, and digests of the values of its leaves, which shadows must not change."""

    graph: tuple[str, ...]
    values: Mapping[str, str]


def snapshot(made: Any) -> Snapshot:
    """Return a snapshot of a program, from which later writes do not follow."""
    program = as_program(made)
    held = {name: value_of(leaf.tensor) for name, leaf in program.leaves.items()}
    values = {id(x): _digest(x.detach()) for x in {id(x): x for x in held.values()}.values()}
    lines = [f"{n.op} {n.target} {n.args} {n.kwargs}" for n in program.nodes()]
    if isinstance(made, nn.Module):
        lines += [_described(m) for m in made.modules()]
    return Snapshot(tuple(lines), {name: values[id(x)] for name, x in held.items()})


def _digest(x: Tensor) -> str:
    """Return a digest that is equal for the same shape, dtype, device and numbers, of which -0 is 0."""
    x = x if x.layout is torch.strided else x.to_dense()
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    numbers = x.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    pieces = (piece + 0.0 if numbers else piece for piece in _pieces(x))
    return f"{x.dtype} {tuple(x.shape)} {x.device} {digest(pieces)}"


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """Yield all elements in logical order, a cacheful at a time."""
    if x.numel() <= _PIECE or x.ndim == 0:
        yield x
    elif x.is_contiguous():
        yield from x.view(-1).split(_PIECE)
    else:
        for part in x:
            yield from _pieces(part)


_PIECE = 1 << 16
"""Number of elements that are read at a time."""


def _described(module: nn.Module) -> str:
    """Return a module's class and settings, and the numbers of its hooks."""
    held = sorted((k, v) for k, v in module.__dict__.items() if isinstance(v, (bool, int, float, str, tuple)))
    hung = {k: len(v) for k, v in module.__dict__.items() if k.endswith("_hooks") and v}
    children = [name for name, _ in module.named_children()]
    return f"{type(module).__name__} {held} {hung} {children} {'forward' in module.__dict__}"
