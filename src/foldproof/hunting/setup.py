"""The compiler that is hunted, with its options, as a key of the corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setup:
    """A compiler, its options in order of their names, and True for compilations with gradients."""

    compiler: str
    options: tuple[tuple[str, Any], ...] = ()
    training: bool = False

    @staticmethod
    def of(compiler: str, options: Mapping[str, Any], training: bool) -> Setup:
        return Setup(compiler, tuple(sorted(options.items())), training)

    @property
    def key(self) -> str:
        """The setup as JSON."""
        return json.dumps([self.compiler, [[name, value] for name, value in self.options], self.training])

    @staticmethod
    def parse(key: str) -> Setup:
        compiler, options, training = json.loads(key)
        return Setup(compiler, tuple((name, value) for name, value in options), training)

    def __str__(self) -> str:
        given = "".join(f" --option {name}={value}" for name, value in self.options)
        return f"{self.compiler}{given}{' --training' * self.training}"
