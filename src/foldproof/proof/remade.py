"""Second programs that are made anew from the first, at whatever leaves are asked for: by a pass, or by a conversion.

The pass or conversion runs on shadows, so that its weights remain functions of the given ones. It has to act on shadows
as on ordinary tensors: the programs that it makes are compared, graph and values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.program import Leaf, Program, as_program, copied
from foldproof.proof.floats import redrawn_leaves
from foldproof.proof.obligation import Sides, Tensors, copied_leaves, equal_content, tied
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
    """

    first: Program
    make: Callable[[Any], Any]
    what: str
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    exact: frozenset[str] = frozenset()

    @functools.cached_property
    def given(self) -> Snapshot:
        """The first program."""
        return snapshot(self._copy())

    @functools.cached_property
    def plain(self) -> Snapshot:
        """The second program at the first one's own tensors."""
        with disable_current_modes():
            return snapshot(self.make(self._copy()))

    def _copy(self) -> Any:
        return self.first.with_leaves(tied(self.first.leaves, lambda name, leaf: copied(leaf.tensor)))

    def sides(self, leaves: Tensors) -> Sides:
        """Return the second program at these leaves.

        Raises:
            Undecided: it is made differently on shadows than on ordinary tensors, or that raises.
        """
        shadowed = any(isinstance(t, Shadow) for t in leaves.values())
        after = self._made_at(leaves)
        if shadowed and (snapshot(after) != self.plain or not self._alike_elsewhere):
            raise Undecided(f"{self.what} acts differently on shadows than on the program's own tensors")
        second = as_program(after)
        return Sides(second, {name: leaf.tensor for name, leaf in second.leaves.items()}, self.names, self.exact)

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
            try:
                plain = snapshot(self.make(self.first.with_leaves(copied_leaves(drawn))))
            except Exception as error:
                log_caught(error, f"running {self.what} at other parameters")
                return True  # there is nothing to compare with
            point = SamplePoint(0, 1)

            def shadow(name: str, leaf: Leaf) -> Tensor:
                value = copied(drawn[name])
                return Shadow(value, draw_variable(point, value, data=False)) if is_number(value.dtype) else value

            leaves = tied(self.first.leaves, shadow)
            with Factories(point):
                made = self._made_at(leaves)
            return snapshot(made) == plain


@dataclass(frozen=True)
class Snapshot:
    """A program: its graph, line by line, and the values of its leaves, which shadows must not change."""

    graph: tuple[str, ...]
    values: dict[str, Tensor]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot) or self.graph != other.graph or self.values.keys() != other.values.keys():
            return False
        return all(equal_content(value, other.values[name]) for name, value in self.values.items())


def snapshot(made: Any) -> Snapshot:
    """Return a snapshot of a program, from which later writes do not follow."""
    program = as_program(made)
    values = {name: value_of(leaf.tensor).detach().clone() for name, leaf in program.leaves.items()}
    lines = [f"{n.op} {n.target} {n.args} {n.kwargs}" for n in program.nodes()]
    if isinstance(made, nn.Module):
        lines += [_described(m) for m in made.modules()]
    return Snapshot(tuple(lines), values)


def _described(module: nn.Module) -> str:
    """Return a module's class and settings, and the numbers of its hooks."""
    held = sorted((k, v) for k, v in module.__dict__.items() if isinstance(v, (bool, int, float, str, tuple)))
    hung = {k: len(v) for k, v in module.__dict__.items() if k.endswith("_hooks") and v}
    children = [name for name, _ in module.named_children()]
    return f"{type(module).__name__} {held} {hung} {children} {'forward' in module.__dict__}"
