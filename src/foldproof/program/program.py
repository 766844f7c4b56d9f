"""The prover's view of a program: named leaves, and a way to run it with other tensors in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor, fx, nn

from foldproof.graph.interpreter import Watch
from foldproof.layout import clone
from foldproof.program.state import Attribute
from foldproof.program.structure import Structure
from foldproof.torch_internals import lazy_clone

NO_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({})


@dataclass(frozen=True)
class Leaf:
    """A tensor that a program owns. Proofs do not vary ``constant`` leaves (literals, tensors of observers)."""

    tensor: Tensor
    constant: bool = False
    aliased: bool = False
    """True if an attribute that is neither parameter nor buffer shares its memory; that one is not replaced with it."""
    table: bool = False
    """True for a constant that the program computes by itself, as rotary angles. What is computed from tables alone is
    another one, in floating point."""
    valueless: bool = False
    """True if the program has no values for it; those of ``tensor`` are drawn."""

    def copied(self) -> Tensor:
        """Return a copy of the tensor; drawn values repeat few numbers, and so do their copies."""
        tensor = self.tensor.detach()
        return lazy_clone(tensor) if self.valueless else clone(tensor)


@dataclass
class Outcome:
    """The result of a run: the outputs in order, their structure, and its writes to leaves and inputs.

    The outputs of a dict are in the order of its keys.
    """

    outputs: list[Any]
    structure: Structure
    names: list[str]
    """The outputs in words: ``output 0``, or ``output['loss']`` of a dict."""
    effects: dict[str, Tensor] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    """Python attributes of modules and their objects that the run set or changed, by name: counters, caches, flags."""
    generator: str = ""
    """A digest of the random generator's state after the run, if it was followed."""


class Program(Protocol):
    """A function of its leaves and inputs."""

    form: str
    leaves: dict[str, Leaf]

    def run(
        self,
        leaves: Mapping[str, Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        watch: Watch | None = None,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
    ) -> Outcome:
        """Run with ``leaves`` (one for each name in `leaves`) in place of the program's own tensors.

        Additional names are buffers that were None, and that an earlier call filled. ``attributes`` are those that an
        earlier call left (`Outcome.attributes`).
        """

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """Run a copy of the program as its owner would: own tensors, hooks and all."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that a run calls, by path, which the program shares with nobody; none of a graph's."""

    def nodes(self) -> list[fx.Node]:
        """Return the nodes of its graph; empty if it has none."""

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        """Return a copy of the underlying object with these tensors as its leaves, as the input of a pass."""
