"""Float64 runs with every constant perturbed within its own rounding, and data left alone.

Two programs that share their inputs and parameters read the same numbers, so that the rounding of these cannot drive
them apart. In float64, only constants of one program alone can: a precomputed parameter, a Python number that a kernel
rounds to its compute dtype, and functions of constants, which the other program may have folded in its own precision.
`ConstantNoise` perturbs just these, each by the rounding of its own dtype. A noise floor made of such runs is far below
the rounding of half-precision data, so that a changed constant stands out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import find_functional_form, list_shared
from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.bound import bound_errors
from foldproof.rounding.complex import draw_noise
from foldproof.rounding.float64 import COUNTING, Float64
from foldproof.rounding.parts import compute_in_parts, has_floats
from foldproof.torch_internals import tree_iter, tree_leaves, tree_map

_ATTRIBUTE = "_foldproof_origin"


@dataclass(frozen=True)
class Origin:
    """The dtype of a tensor in the program itself, and whether it depends on inputs, or on parameters."""

    dtype: torch.dtype
    data: bool
    parameter: bool = False


def mark(x: Tensor, dtype: torch.dtype, *, data: bool, parameter: bool = False) -> Tensor:
    """Mark a leaf or an input, widened to float64, with its origin for `ConstantNoise`; returns ``x``."""
    setattr(x, _ATTRIBUTE, Origin(_real(dtype), data, parameter))
    return x


def depends_on_data(*xs: Any) -> bool:
    """True if any tensor of a run with marked inputs depends on them."""
    return any(_origin(x).data for x in xs)


def depends_on_parameters(*xs: Any) -> bool:
    """True if any tensor of a run with marked leaves depends on those that may vary."""
    return any(_origin(x).parameter for x in xs)


def remember(x: Tensor, *, data: bool, parameter: bool) -> None:
    """Mark ``x`` as dependent on inputs or parameters."""
    setattr(x, _ATTRIBUTE, Origin(_real(x.dtype), data, parameter))


def _real(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of both parts of complex numbers, and any other dtype itself."""
    return dtype.to_real() if dtype.is_complex else dtype


def _origin(x: Any) -> Origin:
    found = getattr(x, _ATTRIBUTE, None)
    return found if isinstance(found, Origin) else Origin(torch.float64, False)


@dataclass
class Constants:
    """The constants that a program holds beside its leaves: Python floats, and tensors in float64.

    Only among these, and among leaves of its own, can one program hold what another one computes of constants, folded
    and rounded. Without such a constant nothing was folded, and computed constants differ by no rounding.
    """

    numbers: set[float] = field(default_factory=set)
    tensors: list[Tensor] = field(default_factory=list)

    def note(self, mode: Float64) -> None:
        """Add what the program read while ``mode`` was active."""
        self.numbers |= mode.numbers
        self.tensors += mode.outside

    def may_hold_folded(self, other: Constants) -> bool:
        """Return True if one that ``other`` does not hold may be a rounded result."""
        own = torch.tensor(sorted(self.numbers - other.numbers), dtype=torch.float64)
        tensors = [x for x in self.tensors if not any(torch.equal(x, y) for y in other.tensors)]
        return any(bool(_may_be_rounded(x).any()) for x in (own, *tensors))


def _may_be_rounded(x: Tensor) -> Tensor:
    """Return the elements that are in no higher precision than float32, but have more than four significant bits."""
    if not _is_wide(x):
        return torch.zeros(())
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    mantissas = torch.frexp(x).mantissa * 16
    return (x == x.float().double()) & (mantissas != mantissas.round())


def _are_whole(xs: Any) -> bool:
    """Return True if all numbers are whole, and short enough for every dtype to compute with them exactly."""
    numbers = [x for x in tree_iter(xs) if _is_wide(x) or type(x) is float]
    return all(_is_whole(x) for x in numbers)


def _is_whole(x: Any) -> bool:
    if isinstance(x, float):
        return x.is_integer() and abs(x) <= _SHORT
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return bool(((x == x.round()) & (x.abs() <= _SHORT)).all())


_SHORT = 2.0**7
_LARGEST = {torch.finfo(dtype).max for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
"""The largest numbers of dtypes, which stand for infinity; a larger one would overflow."""


class ConstantNoise(Float64):
    """While active, perturb constants by up to ``amplitude`` roundings of their own, and data by those of float64.

    ``spread`` is a further perturbation of constants, relative to them (see `amplified`). Unmarked tensors come
    from outside of the program, and are constants. Quantizing any of the values ``exact`` leaves out the rounding.
    Results of constants alone are perturbed only if the other program may hold them ``folded`` (see `Constants`).
    """

    def __init__(
        self,
        generator: torch.Generator,
        amplitude: float = 1.0,
        spread: float = 0.0,
        exact: Sequence[Tensor] = (),
        folded: bool = True,
    ) -> None:
        super().__init__(exact)
        self._generator, self._amplitude, self._spread, self._folded = generator, amplitude, spread, folded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rounds_in_parts = find_rounding(func) is Rounding.PARTS and not self._leaves_unrounded(func, self._widen(args))
        form = find_functional_form(func) if rounds_in_parts and has_floats(args, kwargs) else None
        if form is not None and not form.memory:  # works in place: its operand is gone when it is done
            with self:
                return args[0].copy_(form.operator(*args, **kwargs))
        origin = _origin_of_result(args, kwargs)
        # Kernels round Python numbers to their compute dtype, even beside data.
        wide_args, wide_kwargs = args, kwargs
        if func not in COUNTING:
            wide_args, wide_kwargs = tree_map(lambda x: self._number(x, origin.dtype), (args, kwargs))
        out = super().__torch_dispatch__(func, types, wide_args, wide_kwargs)
        in_parts = rounds_in_parts and compute_in_parts(self, func, out, args, kwargs)
        if not in_parts and not list_shared(func):
            out = self._moved_result(func, out, args, kwargs, origin)
        for result in tree_iter(out):
            if isinstance(result, Tensor):
                _remember(result, origin)
        return out

    def _moved_result(self, func: Any, out: Any, args: Any, kwargs: Any, origin: Origin) -> Any:
        if not any(_is_wide(x) and x.numel() for x in tree_iter(out)):
            return out
        if not origin.data and _are_whole((out, args, kwargs)):
            return out  # a mask that is computed, and then compared with 1
        exact = origin.data or not self._folded
        dtype = torch.float64 if exact else origin.dtype
        amplitude, spread = (1.0, 0.0) if exact else (self._amplitude, amplified(self._spread, dtype))
        bounds = iter(bound_errors(func, out, self._widen(args), self._widen(kwargs), dtype))

        def moved(x: Any) -> Any:
            bound = next(bounds)
            if bound is None:
                return x
            return self._moved_by(x, bound * amplitude + x.abs() * spread, self._repeated(x) if exact else None)

        return tree_map(moved, out)

    def _number(self, x: Any, dtype: torch.dtype) -> Any:
        if type(x) is not float or abs(x) in _LARGEST:
            return x
        double = dtype is torch.float64  # which rounds the number that the program's author had in mind
        if not double and x == float(torch.tensor(x, dtype=torch.float32)):
            return x
        rounding = torch.finfo(torch.float64 if double else torch.float32).eps / 2
        return x * (1 + (rounding * self._amplitude + amplified(self._spread, dtype)) * self._uniform())

    def _from_outside(self, x: Tensor, epsilon: float) -> Tensor:
        if x.numel() == 1 and _is_wide(x) and _is_whole(x):
            return x  # as an exponent, which no rounding made
        return self._moved_by(x, x.abs() * (epsilon / 2 * self._amplitude + self._spread)) if _is_wide(x) else x

    def _moved_by(self, x: Any, bound: Tensor, generator: torch.Generator | None = None) -> Any:
        if not _is_wide(x):
            return x
        moved = draw_noise(x, generator or self._generator).to(x.device) * bound
        # Keep the memory layout of x, on which views depend.
        out: Tensor = x.clone().add_(torch.where(x.isfinite() & moved.isfinite(), moved, 0.0))
        return out

    def _repeated(self, x: Tensor) -> torch.Generator:
        """Return a generator that is the same for the same result: a computation that is done twice rounds alike.

        Otherwise ``y == y``, with y computed twice, would look like a jump that rounding causes.
        """
        real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        bits = int(real.detach().contiguous().view(torch.int64).sum()) if _is_wide(x) else 0
        return torch.Generator().manual_seed(hash((self._generator.initial_seed(), tuple(x.shape), bits)) % 2**63)

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._generator, dtype=torch.float64) * 2 - 1)


def amplified(spread: float, dtype: torch.dtype) -> float:
    """Return the perturbation of a constant of ``dtype`` in place of one of float32: as many roundings of its own."""
    ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    return spread * ratio if dtype is torch.float64 else spread


def _is_wide(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.float64, torch.complex128)


def _known(x: Tensor) -> Origin:
    found = getattr(x, _ATTRIBUTE, None)
    return found if isinstance(found, Origin) else Origin(_real(x.dtype), False)


def _remember(result: Tensor, origin: Origin) -> None:
    """Mark a result; a tensor that data was written to stays data."""
    before = getattr(result, _ATTRIBUTE, None)
    data = origin.data or (isinstance(before, Origin) and before.data)
    setattr(result, _ATTRIBUTE, Origin(origin.dtype, data))


def _origin_of_result(args: Any, kwargs: Any) -> Origin:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    known = [_known(x) for x in tensors]
    asked = [_real(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.dtype)]
    asked = [dtype for dtype in asked if dtype.is_floating_point]
    # A tensor without dimensions has no say in the dtype beside others.
    ruling = [k.dtype for x, k in zip(tensors, known) if x.ndim] or [k.dtype for k in known]
    return Origin(asked[0] if asked else _promoted(ruling), any(k.data for k in known))


def _promoted(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    floats = [d for d in dtypes if d.is_floating_point and d.itemsize > 1]
    return functools.reduce(torch.promote_types, floats) if floats else torch.float32
