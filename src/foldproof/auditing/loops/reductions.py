"""Reductions of Inductor's loops as ATen operators, over the last dimensions of the iteration space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value, convert, expand

aten = torch.ops.aten


class Reductions:
    """Reductions over the dimensions from ``first`` on of a loop of these sizes."""

    def __init__(self, recorder: Recorder, sizes: Sequence[int], first: int) -> None:
        self._recorder, self._sizes, self._first = recorder, list(sizes), first
        self._dims = list(range(first, len(sizes)))
        self._kept = [*sizes[:first], *(1 for _ in self._dims)]

    def apply(self, kind: str, value: Any, dtype: torch.dtype) -> Any:
        """Record a reduction; some have several operands, or several results.

        Raises:
            Unreadable: there is no reading of it.
        """
        made = KINDS.get(kind)
        if made is None:
            raise Unreadable(f"no reading of the reduction {kind}")
        values = value if isinstance(value, (tuple, list)) else [value]
        whole = [expand(self._recorder, v, self._sizes) for v in values]
        return made(self, *whole, dtype)

    def sum(self, x: Value, dtype: torch.dtype) -> Value:
        return self._recorder.call(aten.sum.dim_IntList, x, self._dims, True, dtype=dtype, text=f"sum({x.text})")

    def product(self, x: Value, dtype: torch.dtype) -> Value:
        return self._one_by_one(aten.prod.dim_int, convert(self._recorder, x, dtype), "prod")

    def largest(self, x: Value, dtype: torch.dtype) -> Value:
        return self._recorder.call(aten.amax.default, x, self._dims, True, text=f"max({x.text})")

    def smallest(self, x: Value, dtype: torch.dtype) -> Value:
        return self._recorder.call(aten.amin.default, x, self._dims, True, text=f"min({x.text})")

    def any(self, x: Value, dtype: torch.dtype) -> Value:
        return self._one_by_one(aten.any.dim, x, "any")

    def place_of_largest(self, x: Value, *places: Any) -> Value:
        return self._place(aten.argmax.default, x, *places)

    def place_of_smallest(self, x: Value, *places: Any) -> Value:
        return self._place(aten.argmin.default, x, *places)

    def welford(self, x: Value, dtype: torch.dtype) -> tuple[Value, Value, Value]:
        """Mean, sum of squared distances from it, and number of elements."""
        call = self._recorder.call
        n = math.prod(self._sizes[self._first :])
        mean = call(aten.mean.dim, x, self._dims, True, text=f"mean({x.text})")
        apart = call(aten.sub.Tensor, x, mean)
        squares = call(aten.sum.dim_IntList, call(aten.mul.Tensor, apart, apart), self._dims, True)
        named = Value(squares.node, squares.example, f"squares({x.text})")
        return mean, named, call(aten.full.default, self._kept, float(n), dtype=x.example.dtype, text=str(n))

    def combined_welford(self, mean: Value, squares: Value, weight: Value, dtype: torch.dtype) -> tuple[Value, ...]:
        """The same of parts, from their means, sums and numbers of elements."""
        call = self._recorder.call
        n = self.sum(weight, weight.example.dtype)
        total = self.sum(call(aten.mul.Tensor, mean, weight), dtype)
        whole = call(aten.div.Tensor, total, n, text=f"mean({mean.text})")
        apart = call(aten.sub.Tensor, mean, whole)
        between = call(aten.mul.Tensor, weight, call(aten.mul.Tensor, apart, apart))
        total = self.sum(call(aten.add.Tensor, squares, between), dtype)
        return whole, Value(total.node, total.example, f"squares({mean.text})"), n

    def online_softmax(self, x: Value, dtype: torch.dtype) -> tuple[Value, Value]:
        """The largest element, and the sum of the exponentials of the distances from it."""
        call = self._recorder.call
        top = self.largest(x, dtype)
        return top, self.sum(call(aten.exp.default, call(aten.sub.Tensor, x, top, text=x.text)), dtype)

    def _one_by_one(self, operator: Any, x: Value, name: str) -> Value:
        text = f"{name}({x.text})"
        for dim in self._dims:
            x = self._recorder.call(operator, x, dim, True, text=text)
        return x

    def _place(self, operator: Any, x: Value, *places: Any) -> Value:
        """Return the index of an element in the reduced dimensions, counted as one; of equal ones, the least.

        ``places`` begins with the indices of the elements, if they are not in order.
        """
        call = self._recorder.call
        merged = [*self._sizes[: self._first], -1]
        text = f"{operator.overloadpacket.__name__}({x.text})"
        flat = call(aten.reshape.default, x, merged)
        if not isinstance(places[0], Value):
            return call(aten.reshape.default, call(operator, flat, -1, True), self._kept, text=text)
        indices = call(aten.reshape.default, places[0], merged)
        order = call(aten.argsort.default, indices, -1)
        at = call(operator, call(aten.gather.default, flat, -1, order), -1, True)
        found = call(aten.gather.default, indices, -1, call(aten.gather.default, order, -1, at))
        return call(aten.reshape.default, found, self._kept, text=text)


KINDS: Mapping[str, Callable[..., Any]] = {
    "sum": Reductions.sum,
    "prod": Reductions.product,
    "max": Reductions.largest,
    "min": Reductions.smallest,
    "any": Reductions.any,
    "argmax": Reductions.place_of_largest,
    "argmin": Reductions.place_of_smallest,
    "welford_reduce": Reductions.welford,
    "welford_combine": Reductions.combined_welford,
    "online_softmax_reduce": Reductions.online_softmax,
}
