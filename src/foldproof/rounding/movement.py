"""A bound, to first order, on the movement of computed numbers when the numbers behind them are rounded.

Random roundings give no such bound: where two terms cancel, a few elements of a large sum hardly move in any sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import get_name, is_pointwise, is_view, list_written
from foldproof.rounding.exact import MOVING
from foldproof.torch_internals import DispatchMode, tree_iter, tree_map

_LINEAR = frozenset({"copy_", "sum", "mean", "cumsum", "avg_pool2d", "avg_pool3d"})
_PRODUCTS = frozenset({"mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "convolution"})
"""Operators that multiply two operands and may add a third: the first of ``add…``, the last of the others."""
_SAMPLES = 8
"""Number of random movements of the operands of an operator that is neither linear, nor a product, nor pointwise."""

Operands = dict[int, Tensor]
"""The floating-point operands of a call, by identity."""


class Movement(DispatchMode):
    """A mode that computes how far each result may move if the tensors given to `note` move: Σ |∂f/∂x|·|δx|.

    An operator that arranges or adds elements does the same with their movements, and a product takes absolute values.
    A pointwise operator is run with each operand moved up and down; any other, with all operands moved at random.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, tuple[Tensor, Tensor]] = {}  # holding the tensors keeps their identities

    def note(self, x: Tensor, movement: Tensor) -> None:
        """Record that each element of ``x`` moves by up to ``movement``."""
        self._found[id(x)] = x, movement

    def of(self, x: Tensor) -> Tensor:
        """Return the movement of each element of ``x``; 0 if ``x`` depends on nothing that moves."""
        if id(x) not in self._found:
            self.note(x, torch.zeros_like(x, dtype=torch.float64))
        return self._found[id(x)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}

        def call(replace: Callable[[Tensor], Tensor]) -> list[Tensor]:
            new = tree_map(lambda x: replace(x) if _is_float(x) else x, (args, kwargs))
            return [x.double() for x in tree_iter(func(*new[0], **new[1])) if _is_float(x)]

        operands = {id(x): x for x in tree_iter((args, kwargs)) if _is_float(x)}
        shows = is_view(func)
        moved = self._compute(func, operands, call) if operands and not shows else None
        out = func(*args, **kwargs)
        if shows:
            moved = call(self.of)  # views of the movements, so that a write to one shows in the others
        for x, movement in zip((x for x in tree_iter(out) if _is_float(x)), moved or ()):
            self.of(x).copy_(movement) if list_written(func) else self.note(x, movement)
        return out

    def _compute(self, func: Any, operands: Operands, call: Callable[..., list[Tensor]]) -> list[Tensor] | None:
        def replaced(new: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
            return call(lambda x: new(id(x), x).clone())  # a copy, which the operator may write to

        movements = {key: self.of(x) for key, x in operands.items()}
        moving = [key for key, movement in movements.items() if bool(movement.any())]
        if not moving:
            return None
        name = get_name(func)
        if name == "_to_copy":  # a conversion's own rounding is no movement
            return [movement.clone() for movement in movements.values()]
        if func in MOVING or name in _LINEAR:
            still = replaced(lambda key, x: torch.zeros_like(x))
            return _distances([replaced(lambda key, x: movements[key])], still)
        if name in _PRODUCTS and len(operands) > 1:
            added = next(iter(operands)) if name.startswith("add") or name == "baddbmm" else None
            a, b, *rest = [key for key in operands if key != added]
            rows = [{a: movements[a], b: operands[b].abs()}, {a: operands[a].abs(), b: movements[b]}]
            rows.append({key: movements[key] for key in (*([added] if added else []), *rest)})
            parts = [replaced(lambda key, x: row.get(key, torch.zeros_like(x))) for row in rows]
            return [sum(part.abs() for part in column) for column in zip(*parts)]
        still = replaced(lambda key, x: x)
        if is_pointwise(func):
            total = [torch.zeros_like(x) for x in still]
            for one in moving:
                up, down = (replaced(lambda key, x: x + sign * movements[key] if key == one else x) for sign in (1, -1))
                total = [t + d for t, d in zip(total, _distances([up, down], still))]
            return total
        generator = torch.Generator().manual_seed(0)

        def shaken(key: int, x: Tensor) -> Tensor:
            signs = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
            return x + signs.to(x.device) * movements[key]

        return _distances([replaced(shaken) for _ in range(_SAMPLES)], still)


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _distances(moved: Iterable[list[Tensor]], still: list[Tensor]) -> list[Tensor]:
    """Return the largest distance of each element from where it was."""
    return [torch.stack([(x - s).abs() for x in column]).amax(0) for s, column in zip(still, zip(*moved))]
