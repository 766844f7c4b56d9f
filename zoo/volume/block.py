"""A block: a few operators in a row, with programs that are equal to it over the reals, and programs that are not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Forward = Callable[..., Any]
"""Takes the module that holds the block's tensors, the running value, and the block's extra input, if it has one."""

ROWS, SEQUENCE, IMAGE = (8, 8), (2, 8, 8), (2, 4, 6, 6)
"""The shapes of running values. Blocks keep them; sizes are equal where that makes another axis a legal mistake."""
ANY = (ROWS, SEQUENCE, IMAGE)
WIDE = (ROWS, SEQUENCE)
"""The features are the last axis."""


@dataclass(frozen=True)
class Block:
    """A program and its variants.

    Attributes:
        forward: the program.
        equal: rewrites of it that are right over the reals.
        changed: wrong rewrites.
        held: parameters and buffers in float64.
        derived: more tensors, as a function of the held ones; those variants hold them that are ``folded`` or
            ``misfolded``, rounded to the dtype of the program.
        folded: rewrites that are right but for that rounding.
        misfolded: wrong rewrites, by far more than that rounding.
        extra: an input of integers or booleans.
    """

    forward: Forward
    equal: tuple[Forward, ...]
    changed: tuple[Forward, ...]
    held: Mapping[str, Tensor] = field(default_factory=dict)
    derived: Callable[[Any], Mapping[str, Tensor]] | None = None
    folded: tuple[Forward, ...] = ()
    misfolded: tuple[Forward, ...] = ()
    extra: Tensor | None = None


class Draw:
    """Random numbers of a block, the same for the same seed."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.rng, self.shape = random.Random(seed), shape
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def width(self) -> int:
        """The number of features."""
        return self.shape[1] if self.shape == IMAGE else self.shape[-1]

    @property
    def vector(self) -> tuple[int, ...]:
        """The shape in which one number a feature is broadcast."""
        return (self.width, 1, 1) if self.shape == IMAGE else (self.width,)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers in float64."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64) * scale

    def positive(self, *shape: int) -> Tensor:
        """Numbers from 0.5 to 2 in float64."""
        return torch.rand(*shape, generator=self._generator, dtype=torch.float64) * 1.5 + 0.5

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to ``high`` - 1."""
        return torch.randint(high, shape, generator=self._generator)

    def booleans(self, *shape: int) -> Tensor:
        """Booleans of both kinds."""
        return torch.rand(*shape, generator=self._generator) < 0.5

    def factor(self) -> float:
        """The size of a small mistake."""
        return self.rng.choice((1.003, 1.01, 1.03, 1.1))


Builder = Callable[[Draw], Block]
STATELESS: dict[str, tuple[Builder, tuple[tuple[int, ...], ...]]] = {}
"""Builders by name, and the shapes that each takes."""
STATEFUL: dict[str, tuple[Builder, tuple[tuple[int, ...], ...]]] = {}
"""Those whose programs write to what they hold."""


def stateless(*shapes: tuple[int, ...]) -> Callable[[Builder], Builder]:
    """Enter a builder in `STATELESS`."""
    return lambda build: STATELESS.setdefault(build.__name__, (build, shapes))[0]


def stateful(*shapes: tuple[int, ...]) -> Callable[[Builder], Builder]:
    """Enter a builder in `STATEFUL`."""
    return lambda build: STATEFUL.setdefault(build.__name__, (build, shapes))[0]


def wide(x: Tensor) -> Tensor:
    """The tensor in the dtype that sums are accumulated in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
