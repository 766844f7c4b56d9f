"""What the prover needs of a program: named leaves, and a way to run it with other tensors in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, fx

from foldproof.graph.interpreter import Watch
from foldproof.program.structure import Structure


@dataclass(frozen=True)
class Leaf:
    """A tensor that a program owns. ``constant`` leaves (literals, what observers hold) are not quantified over."""

    tensor: Tensor
    constant: bool = False
    aliased: bool = False
    """An attribute that is neither parameter nor buffer reads its memory, too, and is not replaced with it."""


@dataclass
class Outcome:
    """What a run gives: the outputs in order, how they are put together, and what it wrote to leaves and inputs.

    The outputs of a dict are in the order of its keys.
    """

    outputs: list[Any]
    structure: Structure
    effects: dict[str, Tensor] = field(default_factory=dict)


class Program(Protocol):
    """A function of its leaves and inputs."""

    form: str
    leaves: dict[str, Leaf]

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        """Run with ``leaves`` (all of `leaves`' names) in place of the program's own tensors.

        Other names among them are buffers that were None, and that an earlier call filled.
        """

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """Run as its owner would, on a copy: own tensors, hooks and all."""

    def nodes(self) -> list[fx.Node]:
        """The nodes of its graph; empty where it has none."""

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        """A copy of the underlying object whose leaves are these tensors (for a pass to be run on)."""
