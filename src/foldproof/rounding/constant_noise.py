"""Float64 runs in which every constant is moved within its own rounding, and data is not.

Two programs that share their inputs and parameters can't be driven apart by the rounding of these: both read the same
numbers. In float64 only what one of them holds for itself can be: a parameter that it computed beforehand, a Python
number that a kernel rounds to its compute type, and whatever is computed of constants alone, which the other program
may have folded in its own precision. `ConstantNoise` moves just these, each by what its own dtype rounds. So a floor
made of such runs stays far below the rounding of half-precision data, and a changed constant shows above it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import list_shared
from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.bound import bound_errors
from foldproof.rounding.float64 import Float64
from foldproof.rounding.parts import compute_in_parts
from foldproof.torch_internals import tree_iter, tree_leaves, tree_map

_ATTRIBUTE = "_foldproof_origin"


@dataclass(frozen=True)
class Origin:
    """The dtype in which the program itself holds a tensor, and whether its inputs go into it."""

    dtype: torch.dtype
    data: bool


def mark(x: Tensor, dtype: torch.dtype, *, data: bool) -> Tensor:
    """Tell `ConstantNoise` what a leaf or an input, widened to float64, is; gives ``x``."""
    setattr(x, _ATTRIBUTE, Origin(dtype, data))
    return x


def depends_on_data(x: Tensor) -> bool:
    """Whether inputs of the program go into a tensor of a run in which they were marked."""
    found = getattr(x, _ATTRIBUTE, None)
    return isinstance(found, Origin) and found.data


def remember_data(x: Tensor) -> None:
    """Note that inputs go into ``x``."""
    setattr(x, _ATTRIBUTE, Origin(x.dtype, True))


class ConstantNoise(Float64):
    """While active, constants are moved by up to ``amplitude`` roundings of their own; data by those of float64.

    ``spread`` moves constants by that much more, relative to their size. Tensors that are not marked (see `mark`) come
    from outside of the program, and are constants. Quantizing any of the values ``exact`` leaves out the rounding.
    """

    def __init__(
        self,
        generator: torch.Generator,
        amplitude: float = 1.0,
        spread: float = 0.0,
        exact: Sequence[Tensor] = (),
    ) -> None:
        super().__init__(exact)
        self._generator, self._amplitude, self._spread = generator, amplitude, spread

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        origin = _origin_of_result(args, kwargs)
        # Numbers are rounded by kernels, whatever they are combined with.
        wide_args, wide_kwargs = tree_map(self._number, (args, kwargs))
        out = super().__torch_dispatch__(func, types, wide_args, wide_kwargs)
        in_parts = find_rounding(func) is Rounding.PARTS and not self._leaves_unrounded(func, self._widen(args))
        in_parts = in_parts and compute_in_parts(self, func, out, args, kwargs)
        if not in_parts and not list_shared(func):
            out = self._moved_result(func, out, args, kwargs, origin)
        for result in tree_iter(out):
            if isinstance(result, Tensor):
                _remember(result, origin)
        return out

    def _moved_result(self, func: Any, out: Any, args: Any, kwargs: Any, origin: Origin) -> Any:
        if not any(_is_wide(x) and x.numel() for x in tree_iter(out)):
            return out
        dtype = torch.float64 if origin.data else origin.dtype
        amplitude, spread = (1.0, 0.0) if origin.data else (self._amplitude, self._spread)
        bounds = iter(bound_errors(func, out, self._widen(args), self._widen(kwargs), dtype))

        def moved(x: Any) -> Any:
            bound = next(bounds)
            return x if bound is None else self._moved_by(x, bound * amplitude + x.abs() * spread)

        return tree_map(moved, out)

    def _number(self, x: Any) -> Any:
        if type(x) is float and x != float(torch.tensor(x, dtype=torch.float32)):
            return x * (1 + (2.0**-24 * self._amplitude + self._spread) * float(self._uniform(())))
        return x

    def _from_outside(self, x: Tensor, epsilon: float) -> Tensor:
        return self._moved_by(x, x.abs() * (epsilon / 2 * self._amplitude + self._spread)) if _is_wide(x) else x

    def _moved_by(self, x: Any, bound: Tensor) -> Any:
        if not _is_wide(x):
            return x
        moved = self._uniform(x.shape).to(x.device) * bound
        # Laid out in memory as x is: views hang on that.
        out: Tensor = x.clone().add_(torch.where(x.isfinite() & moved.isfinite(), moved, 0.0))
        return out

    def _uniform(self, shape: Any) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64) * 2 - 1


def _is_wide(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float64


def _known(x: Tensor) -> Origin:
    found = getattr(x, _ATTRIBUTE, None)
    return found if isinstance(found, Origin) else Origin(x.dtype, False)


def _remember(result: Tensor, origin: Origin) -> None:
    """What is written to with data is data from there on."""
    before = getattr(result, _ATTRIBUTE, None)
    data = origin.data or (isinstance(before, Origin) and before.data)
    setattr(result, _ATTRIBUTE, Origin(origin.dtype, data))


def _origin_of_result(args: Any, kwargs: Any) -> Origin:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    known = [_known(x) for x in tensors]
    asked = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.dtype) and x.is_floating_point]
    # A tensor without dimensions decides no dtype beside others.
    ruling = [k.dtype for x, k in zip(tensors, known) if x.ndim] or [k.dtype for k in known]
    return Origin(asked[0] if asked else _promoted(ruling), any(k.data for k in known))


def _promoted(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    floats = [d for d in dtypes if d.is_floating_point and d.itemsize > 1]
    return functools.reduce(torch.promote_types, floats) if floats else torch.float32
