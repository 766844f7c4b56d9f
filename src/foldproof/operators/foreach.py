"""Operators on lists of tensors, ``_foreach_add`` and others: each is one operator, applied to each element.

The schema tells the operator. Lists of tensors and of numbers are zipped, and other arguments are the same for all
elements. An operator in place writes each element before it reads the next, as PyTorch's loop does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.operators.fused import FUSED
from foldproof.operators.schema import bind_arguments, get_name, get_types, list_written
from foldproof.torch_internals import OpOverload

aten = torch.ops.aten

_PREFIX = "_foreach_"

_KEYWORDS = {"alpha", "value", "dtype", "memory_format"}

_OF_NUMBERS = {"maximum": "clamp_min", "minimum": "clamp_max"}
"""Operators with another name where an operand is a number."""


@functools.cache
def define_foreach(operator: OpOverload) -> Callable[..., Any] | None:
    """Return the operator as a function of others; None for an operator of another kind, or with ``out`` arguments."""
    if operator in FUSED:
        return FUSED[operator]
    if operator.namespace != "aten" or not get_name(operator).startswith(_PREFIX) or "out" in get_types(operator):
        return None
    name, kinds = get_name(operator).removeprefix(_PREFIX).removesuffix("_"), get_types(operator)
    function = _find_single(name, kinds)
    if function is None:
        return None
    lists = [argument for argument, kind in kinds.items() if kind.startswith("List[")]

    def run(*args: Any, **kwargs: Any) -> list[Tensor] | None:
        given = bind_arguments(operator, args, kwargs)
        given.pop("non_blocking", None)
        results = []
        for i in range(len(given[lists[0]])):
            each = {argument: x[i] if argument in lists else x for argument, x in given.items()}
            if "scalars" in each and "scalars" not in lists:  # a tensor of numbers, one for each element
                each["scalars"] = each["scalars"][i]
            result = function(*_positional(name, each), **_keywords(name, each))
            results.append(_written(given["self"][i], result) if list_written(operator) else result)
        return None if list_written(operator) else results

    return run


def _written(x: Tensor, result: Tensor) -> Tensor:
    if not torch.can_cast(result.dtype, x.dtype):
        raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {x.dtype}")
    return x.copy_(result)


def _positional(name: str, each: dict[str, Any]) -> list[Any]:
    return [x for argument, x in each.items() if argument not in _keywords(name, each) and argument != "scalars"] + (
        [each["scalars"]] if "scalars" in each and name not in _SCALED else []
    )


def _keywords(name: str, each: dict[str, Any]) -> dict[str, Any]:
    named = {argument: x for argument, x in each.items() if argument in _KEYWORDS}
    return {**named, "value": each["scalars"]} if name in _SCALED and "scalars" in each else named


def _find_single(name: str, kinds: dict[str, str]) -> Callable[..., Any] | None:
    """Return the function of one element; None if there is none of that name."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    if any("number" in kind or "Scalar" in kind for argument, kind in kinds.items() if argument.startswith("scalar")):
        name = _OF_NUMBERS.get(name, name)
    found: Callable[..., Any] | None = getattr(aten, name, None)
    return found


def _scaled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return x + value·f(y, z), whose value may be a tensor."""

    def run(x: Tensor, y: Tensor, z: Tensor, *, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            single: Tensor = getattr(aten, {"mul": "addcmul", "div": "addcdiv"}[function.__name__])(
                x, y, z, value=value
            )
            return single
        return x + function(y, z) * value.to(torch.promote_types(y.dtype, z.dtype))

    return run


def _copied(x: Tensor, source: Tensor) -> Tensor:
    out: Tensor = source.to(x.dtype).expand(x.shape).clone()
    return out


def _sum_of_powers(x: Tensor, ord: Any, *, dtype: torch.dtype | None) -> Tensor:
    out: Tensor = (x.abs() ** ord).sum(dtype=dtype)
    return out


def _norm(x: Tensor, ord: Any, *, dtype: torch.dtype | None) -> Tensor:
    out: Tensor = aten.linalg_vector_norm(x, ord, None, False, dtype=dtype)
    return out


_SCALED = {"addcmul", "addcdiv"}

_SPECIAL: dict[str, Callable[..., Any]] = {
    "addcmul": _scaled(torch.mul),
    "addcdiv": _scaled(torch.div),
    "copy": _copied,
    "norm": _norm,
    "powsum": _sum_of_powers,
}
