"""The table of ONNX operators, and what their definitions share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from foldproof.errors import FoldproofError

F = TypeVar("F", bound=Callable[..., Any])

Numbers = Tensor | Sequence[float]
"""Sizes, axes, scales and the like: an input in newer versions of ONNX. Constants are numbers in the graph."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class NotTranslated(FoldproofError):
    """An ONNX operator, or a use of it, that has no definition here."""


class Definition(NamedTuple):
    """The meaning of an ONNX operator, as a function of tensors, or None for an input that is left out.

    Attributes are keyword arguments. ``several`` is true if it returns a tuple.
    """

    function: Callable[..., Any]
    operands: tuple[int, int | None]
    """Smallest and largest number of inputs; None if there is no largest."""
    numbers: frozenset[int]
    """Places of `Numbers` among the inputs."""
    several: bool
    counts: bool
    """True if it takes the number of outputs, as ``outputs``."""
    attributes: frozenset[str]
    sequences: frozenset[str] = frozenset()
    """Attributes of several numbers, of which a file may have one."""
    required: frozenset[str] = frozenset()
    """Attributes without a default."""


DEFINITIONS: dict[tuple[str, str], Definition] = {}
"""The definitions, by domain and name of the operator."""


def defines(
    *names: str, domain: str = "", several: bool = False, like: Callable[..., Any] | None = None
) -> Callable[[F], F]:
    """Register the decorated function as the meaning of ONNX operators.

    It has the attributes of ``like``, too, which is registered before and gets them.
    """

    def register(function: F) -> F:
        parameters = inspect.signature(function).parameters.values()
        named = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        places = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        least = sum(p.default is inspect.Parameter.empty for p in places)
        most = None if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters) else len(places)
        numbers = frozenset(i for i, p in enumerate(places) if "Numbers" in str(p.annotation))
        attributes = frozenset(named - {"outputs"}) | _attributes_of(like)
        given = [p for p in parameters if p.name in attributes]
        sequences = frozenset(p.name for p in given if "Sequence[" in str(p.annotation))
        required = frozenset(p.name for p in given if p.default is inspect.Parameter.empty)
        found = Definition(
            function, (least, most), numbers, several, "outputs" in named, attributes, sequences, required
        )
        for name in names:
            DEFINITIONS[domain, name] = found
        return function

    return register


def _attributes_of(function: Callable[..., Any] | None) -> frozenset[str]:
    return next((found.attributes for found in DEFINITIONS.values() if found.function is function), frozenset())


DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""PyTorch's dtypes, by their numbers in ``TensorProto.DataType``."""


_STRING = 8


def dtype_of(number: int) -> torch.dtype:
    """Return the dtype of this number.

    Raises:
        NotTranslated: PyTorch has no such dtype, or foldproof does not read it.
    """
    if number == _STRING:
        raise NotTranslated("the ONNX model computes with strings, of which nothing can be proved")
    if number not in DTYPES:
        raise NotTranslated(f"the ONNX data type {number} has no equivalent that can be proved")
    return DTYPES[number]


def whole_numbers(x: Numbers | None) -> list[int]:
    """Return the numbers of sizes, axes or the like."""
    if x is None:
        return []
    return [int(n) for n in (x.flatten().tolist() if isinstance(x, Tensor) else x)]
