"""The iterations that a loop's reductions need.

A window that reaches far past its input adds up zeros there. Claim: each iteration outside of the returned ranges gives
every reduction its neutral number, loads nothing, and stores nothing but results of reductions; so the loop means the
same without it. The body itself tells: this handler follows which values are one number outside of a box of iterations.
A comparison of an index with a number bounds the box, a mask of such comparisons hides its loads outside of it, and all
that is not understood ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sympy  # type: ignore[import-untyped]

from foldproof.auditing.loops.indices import find_affine
from foldproof.auditing.loops.pointwise import OPERATORS, SPELLED
from foldproof.torch_internals import call_loop_body

NEUTRAL = {"sum": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}


def crop(body: Any, ranges: Mapping[Any, int], reduced: int) -> dict[Any, int]:
    """Return the numbers of values of each loop variable, smaller ones where a reduction needs no more.

    ``reduced`` is the number of variables at the end that reductions run over.
    """
    handler = _Needed(ranges, reduced)
    with suppress(_NotUnderstood):
        call_loop_body(body, handler)
        return {v: max(1, handler.needed.get(v, n)) for v, n in ranges.items()}
    return dict(ranges)


class _NotUnderstood(Exception):
    """The body does something of which nothing is known."""


@dataclass(frozen=True)
class _Elsewhere:
    """A value that is ``number`` unless each variable is below its limit."""

    number: float
    limits: Mapping[Any, int]


@dataclass(frozen=True)
class _Index:
    expression: Any


class _Needed:
    """The handler; ``needed`` has a limit of each variable, outside of which no reduction and no load is reached."""

    def __init__(self, ranges: Mapping[Any, int], reduced: int) -> None:
        self._ranges = ranges
        self.reduced = [*ranges][len(ranges) - reduced :]
        self.needed: dict[Any, int] = {}
        self._mask: Mapping[Any, int] | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in OPERATORS and name not in SPELLED:
            raise _NotUnderstood
        return lambda *operands: None  # a value of which nothing is known

    def constant(self, number: Any, dtype: Any) -> Any:
        return number if isinstance(number, (bool, int, float)) else None

    def to_dtype(self, x: Any, *_: Any, **__: Any) -> Any:
        return x if isinstance(x, _Elsewhere) and x.number == 0 else None

    def index_expr(self, expression: Any, dtype: Any) -> Any:
        return _Index(sympy.sympify(expression))

    def lt(self, a: Any, b: Any) -> Any:
        return self._below(a, b) if isinstance(b, int) else None

    def le(self, a: Any, b: Any) -> Any:
        return self._below(a, b + 1) if isinstance(b, int) else None

    def _below(self, index: Any, bound: int) -> Any:
        """Return a comparison: an index that grows with a variable is too large from some value of it on."""
        affine = find_affine(index.expression, self._ranges) if isinstance(index, _Index) else None
        if affine is None:
            return None
        steps = dict(zip(self._ranges, affine.strides))
        least = affine.offset + sum(min(0, s * (self._ranges[v] - 1)) for v, s in steps.items())
        return _Elsewhere(False, {v: max(0, -((least - bound) // s)) for v, s in steps.items() if s > 0})

    def and_(self, a: Any, b: Any) -> Any:
        limits: dict[Any, int] = {}
        for one in (a, b):
            if isinstance(one, _Elsewhere) and one.number == 0:
                limits |= {v: min(n, limits.get(v, n)) for v, n in one.limits.items()}
        return _Elsewhere(False, limits)

    logical_and = and_

    def masked(self, mask: Any, body: Callable[[], Any], other: Any) -> Any:
        limits = mask.limits if isinstance(mask, _Elsewhere) and mask.number == 0 else {}
        outer = self._mask
        self._mask = limits if outer is None else self.and_(_Elsewhere(False, limits), _Elsewhere(False, outer)).limits
        try:
            body()
        finally:
            self._mask = outer
        return _Elsewhere(other, limits) if isinstance(other, (bool, int, float)) else None

    def load(self, name: str, index: Any) -> Any:
        self._need({} if self._mask is None else self._mask)

    def _need(self, limits: Mapping[Any, int]) -> None:
        for v in self.reduced:
            # A limit may lie behind the range: a short window may stay inside of its input.
            self.needed[v] = max(self.needed.get(v, 0), min(self._ranges[v], limits.get(v, self._ranges[v])))

    def indirect_indexing(self, *_: Any, **__: Any) -> Any:
        return sympy.Dummy(integer=True)

    def reduction(self, dtype: Any, src_dtype: Any, kind: str, value: Any) -> Any:
        if kind not in NEUTRAL:
            raise _NotUnderstood
        self._need(value.limits if isinstance(value, _Elsewhere) and value.number == NEUTRAL[kind] else {})

    def store_reduction(self, name: str, index: Any, value: Any) -> None:
        """Read as nothing: it is reached once for all iterations of the reductions."""

    def store(self, *_: Any, **__: Any) -> Any:
        raise _NotUnderstood

    def output(self, *_: Any) -> None:
        """End of the body."""
