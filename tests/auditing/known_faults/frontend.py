"""Known faults of Dynamo and of functionalization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import unpack_iterable
from torch._dynamo.variables.lists import ListIteratorVariable, ListVariable
from torch._dynamo.variables.tensor import TensorVariable

from tests.auditing.known_faults.fault import KnownFault, normal, patched, trained


def _of_a_copy(original: Any) -> Any:
    """An iterator over the elements that a list has at first."""

    def create(self: Any, items: Any, *args: Any, **named: Any) -> None:
        original(self, list(items), *args, **named)

    return create


def _growing(x: Tensor) -> Tensor:
    values, total = [x.sum()], torch.zeros(())
    for value in values:
        if len(values) < 3:
            values.append(value + 1)
        total = total + value
    return total


def _without_method(name: str) -> Any:
    def wrong(original: Any) -> Any:
        def call(self: Any, tx: Any, called: str, args: Any, kwargs: Any) -> Any:
            return self if called == name else original(self, tx, called, args, kwargs)

        return call

    return wrong


def _of_a_clone(original: Any) -> Any:
    """`as_strided` of the elements of a view, not of the memory below."""

    def call(self: Any, tx: Any, called: str, args: Any, kwargs: Any) -> Any:
        subject = original(self, tx, "clone", [], {}) if called == "as_strided" else self
        return original(subject, tx, called, args, kwargs)

    return call


def _detached(x: Tensor) -> Tensor:
    y = x * 2
    y.detach_()
    return y + x.sin()


def _at_once(original: Any) -> Any:
    """`extend`, which takes all elements of a generator before it appends the first."""

    def call(self: Any, tx: Any, called: str, args: Any, kwargs: Any) -> Any:
        if called == "extend":
            args = [ListVariable(list(unpack_iterable(tx, args[0])))]
        return original(self, tx, called, args, kwargs)

    return call


def _extended(x: Tensor) -> Tensor:
    values = [x, x]
    values.extend(values[-1] + i for i in (1, 2, 3))
    return torch.stack(values)


FAULTS = {
    "a list that grows": KnownFault(
        "a loop over a list misses the elements that it appends",
        175855,
        patched(ListIteratorVariable, "__init__", _of_a_copy),
        _growing,
        normal((3,)),
    ),
    "detach_ without effect": KnownFault(
        "`detach_` is dropped, and gradients flow",
        176854,
        patched(TensorVariable, "call_method", _without_method("detach_")),
        _detached,
        trained((4,)),
        training=True,
    ),
    "as_strided of a view": KnownFault(
        "`as_strided` of a view is applied to the elements of the view, not to its memory",
        104505,
        patched(TensorVariable, "call_method", _of_a_clone),
        lambda x: x.diagonal().as_strided((2,), (1,), 0) * 2,
        normal((2, 4)),
    ),
    "a list that is extended": KnownFault(
        "`extend` takes all elements of a generator before it appends the first",
        133063,
        patched(ListVariable, "call_method", _at_once),
        _extended,
        normal((3,)),
    ),
}
