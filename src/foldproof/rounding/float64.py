"""The float64 result: a run with the real operators and every floating-point tensor in double precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import EndlessLoop
from foldproof.operators import bind_arguments, define_foreach, is_draw, list_updated_statistics, list_written
from foldproof.rounding.nearest import NEAREST, take_nearest
from foldproof.rounding.quantized import UNROUNDED, WIDE
from foldproof.thresholds import MAX_OPERATORS
from foldproof.torch_internals import DispatchMode, note_write, storage_id, tree_iter, tree_map

_WIDER = dict.fromkeys(
    (
        *(torch.float32, torch.float16, torch.bfloat16),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    ),
    torch.float64,
) | {torch.complex64: torch.complex128}


def widened(x: Any) -> Any:
    """Return a tensor or dtype of lower floating-point precision in double precision; anything else unchanged."""
    if not isinstance(x, Tensor):
        return _WIDER.get(x, x) if isinstance(x, torch.dtype) else x
    if x.dtype not in _WIDER:
        return x
    held = x.untyped_storage().nbytes() // x.element_size() if type(x) is Tensor and x.device.type == "cpu" else None
    if held is None or held >= x.numel() or 0 in x.stride():
        return x.to(_WIDER[x.dtype])
    # The values of a model without weights repeat a few numbers, which stay few.
    few = x.as_strided((held,), (1,), 0).to(_WIDER[x.dtype])
    return few.as_strided(x.shape, x.stride(), x.storage_offset())


def map_leaves(function: Callable[[Any], Any], x: Any) -> Any:
    """Map the leaves of an operator's arguments or results: `tree_map`, without its search for kinds of containers."""
    kind = type(x)
    if kind is tuple:
        return tuple([map_leaves(function, y) for y in x])
    if kind is list:
        return [map_leaves(function, y) for y in x]
    if kind is dict:
        return {name: map_leaves(function, y) for name, y in x.items()}
    return function(x) if isinstance(x, (Tensor, bool, int, float, complex, str)) else tree_map(function, x)


def _is(x: Tensor, value: Tensor) -> bool:
    """True if both hold the same numbers, up to the rounding of float32."""
    return (
        x.shape == value.shape
        and x.numel() > 0
        and torch.allclose(x, value, rtol=1e-5, atol=1e-6 * float(value.abs().max()))
    )


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    """Let operators on integers give float64 where they give floating-point numbers, and not float32."""
    saved = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(saved)


def _shows_parts(x: Tensor, dtype: torch.dtype) -> bool:
    """True if complex numbers are viewed as pairs of real ones, or pairs as complex numbers."""
    kinds = (x.dtype, dtype)
    return (
        sum(k.is_complex for k in kinds) == 1
        and all(k.is_complex or k.is_floating_point for k in kinds)
        and (x.dtype.to_real() == dtype.to_real())
    )


def _promotes(args: Any) -> bool:
    """True if all tensors are integers or booleans."""
    tensors = [x for x in tree_iter(args) if isinstance(x, Tensor)]
    return bool(tensors) and not any(t.is_floating_point() or t.is_complex() for t in tensors)


COUNTING = {
    *(torch.ops.aten.arange.default, torch.ops.aten.arange.start, torch.ops.aten.arange.start_step),
    *(torch.ops.aten.range.default, torch.ops.aten.range.step),
}
"""Operators whose numbers give the number of elements, which rounding does not move."""


class Float64(DispatchMode):
    """While active, compute every operator in float64: tensors and requested dtypes are widened.

    ``dtype`` is the result's dtype in the program itself, which determines the coordinates of resized images; the
    runner of the program keeps it up to date. Quantizing any of the values ``exact`` leaves out the rounding.
    ``numbers`` collects the Python floats that operators were given. Random numbers are drawn in ``dtype``, because
    generators give others in double precision.

    Raises (from any operator):
        TypeError: a view reinterprets bits as another dtype, which has no float64 form.
        EndlessLoop: it is called more often than any program calls operators.
    """

    def __init__(self, exact: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._exact = exact
        self.dtype = torch.float32
        self.numbers: set[float] = set()
        self._calls = 0
        self._widened: dict[tuple[int, torch.dtype], tuple[torch.UntypedStorage, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls += 1
        if self._calls > MAX_OPERATORS:
            raise EndlessLoop(f"it calls more than {MAX_OPERATORS} operators, as a loop without an end does")
        if func is torch.ops.aten._assert_tensor_metadata.default:
            return None
        if func in (torch.ops.aten.view.dtype, torch.ops.aten.view_copy.dtype) and not _shows_parts(*args):
            raise TypeError("a view as another dtype has no float64 form")
        if is_draw(func):
            return self._draw(func, args, kwargs or {})
        args, kwargs = self._widen(args), self._widen(kwargs or {})
        if self._leaves_unrounded(func, args):
            return UNROUNDED[func](*args, **kwargs)
        compute = WIDE.get(func, func)
        if func in NEAREST and self.dtype != torch.float64:
            compute = partial(take_nearest, func)
        with double_by_default() if _promotes(args) else contextlib.nullcontext():
            out = map_leaves(widened, compute(*args, **kwargs))  # operators that create tensors make float32 ones
        given = bind_arguments(func, args, kwargs)
        for name in list_updated_statistics(func, given):
            note_write(given[name])
        if list_written(func) and define_foreach(func) is not None:  # in code of a mode, these count no writes
            for x in (x for name in list_written(func) for x in given[name]):
                note_write(x)
        return out

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return random numbers that are drawn in the program's own dtype."""

        def narrow(x: Any) -> Any:
            return x.to(self.dtype) if isinstance(x, Tensor) and x.dtype is torch.float64 else x

        wide = self._widen(args)
        drawn = func(*map_leaves(narrow, wide), **map_leaves(narrow, kwargs))
        if list_written(func):
            return wide[0].copy_(drawn)
        return map_leaves(widened, drawn)

    @property
    def outside(self) -> list[Tensor]:
        """The tensors, in float64, that the program read beside leaves and inputs."""
        return [wide for _, wide in self._widened.values()]

    def _leaves_unrounded(self, func: Any, args: Any) -> bool:
        """True for a quantization of one of the values that are not to be rounded."""
        return func in UNROUNDED and any(_is(args[0], value) for value in self._exact)

    def _widen(self, x: Any) -> Any:
        def widen(v: Any) -> Any:
            if isinstance(v, Tensor):
                return self._wide(v)
            if type(v) is float:
                self.numbers.add(v)
            return widened(v) if isinstance(v, torch.dtype) else v

        return map_leaves(widen, x)

    def _wide(self, x: Tensor) -> Tensor:
        """Return the tensor as a view of the one float64 copy of its memory, so that every view sees each write."""
        if x.dtype not in _WIDER or x.layout is not torch.strided:
            return widened(x)  # type: ignore[no-any-return]
        memory = x.untyped_storage()
        key = storage_id(x), x.dtype
        if key not in self._widened:
            # Read x by dispatched operators: another such mode around this one has its own copy for them.
            whole = x.detach().as_strided((memory.nbytes() // x.itemsize,), (1,), 0)
            self._widened[key] = memory, self._from_outside(widened(whole), torch.finfo(x.dtype).eps)
        return self._widened[key][1].as_strided(x.shape, x.stride(), x.storage_offset())

    def _from_outside(self, x: Tensor, epsilon: float) -> Tensor:
        """Return, in float64, a tensor that is neither leaf nor input; ``epsilon`` is that of its own dtype."""
        return x
