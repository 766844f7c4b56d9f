"""The real numbers in place of a finite field: the same rules then say what an operator computes in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow import SamplePoint, Semantics


class Reals:
    """The interface of `foldproof.field.Field`, over float64.

    ``total`` makes functions 0 where they have no value: a piece of a function is computed everywhere, and may have
    none where another piece is used.
    """

    p = 1

    def __init__(self, total: bool) -> None:
        self._total = total

    def valued(self, x: Tensor) -> Tensor:
        return torch.where(x.isfinite(), x, 0.0) if self._total else x

    def reduce(self, x: Tensor) -> Tensor:
        return x

    def reduce_(self, x: Tensor) -> Tensor:
        return x

    def canonical(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, x: Tensor) -> Tensor:
        return self.valued(1 / x)

    def number(self, x: float) -> float:
        return float(x)

    def embed(self, x: Tensor) -> Tensor:
        return x.to(torch.float64)


class RealPoint(SamplePoint):
    """A draw with one field, the reals, in which uninterpreted functions are the functions that they stand for."""

    def __init__(self, semantics: Semantics) -> None:
        super().__init__(seed=0, k=1, semantics=semantics)
        self._reals = Reals(semantics.algebraic)
        self.fields = [self._reals]  # type: ignore[list-item]
        self.infinity = ((math.inf, -math.inf),)

    def _evaluate(
        self, name: str, operands: Sequence[Sequence[Tensor]], real: Callable[..., Tensor], nonzero: bool
    ) -> tuple[Any, ...]:
        return (self._reals.valued(real(*(parts[0] for parts in operands))),)
