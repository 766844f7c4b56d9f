"""Operands of a call: by themselves, and in lists, tuples and dicts, which are all the containers that operators know.

PyTorch's pytrees know others, too, and take several times as long, which shows: each call of a proof goes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def iterate(x: Any) -> Iterator[Any]:
    """Yield the operands in ``x``."""
    if isinstance(x, (tuple, list)):
        for part in x:
            if isinstance(part, (tuple, list, dict)):
                yield from iterate(part)
            else:
                yield part
    elif isinstance(x, dict):
        yield from iterate([*x.values()])
    else:
        yield x


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """Return ``x`` with the function of each operand in its place."""
    if isinstance(x, tuple):
        return tuple(mapped(function, part) for part in x)
    if isinstance(x, list):
        return [mapped(function, part) for part in x]
    if isinstance(x, dict):
        return {name: mapped(function, part) for name, part in x.items()}
    return function(x)
