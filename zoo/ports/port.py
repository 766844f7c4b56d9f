"""A port: its name, where both sides and the conversion come from, and a function that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Pair(NamedTuple):
    """The arguments of `foldproof.prove`."""

    reference: Any
    port: Any
    inputs: tuple[Any, ...]
    convert: Callable[..., Any]


@dataclass(frozen=True)
class Port:
    """A port of a model; ``conversion`` says who wrote the function that converts checkpoints."""

    name: str
    reference: str
    port: str
    conversion: str
    make: Callable[[], Pair]
    remark: str = ""
    """Our words on its verdict, for the page."""

    def pair(self) -> Pair:
        """Make both sides, with the same random weights each time."""
        torch.manual_seed(0)
        return self.make()


TOKENS = torch.arange(6).reshape(1, 6) * 7 % 61
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
"""Small inputs."""
