"""Recording: operators written as nodes of a graph, each once, with an example of its result.

An example of a value that depends on loop variables alone is the value itself. Others are tensors on the meta device,
which have a dtype and a shape. So ranges of indices are known while a loop is recorded, and types are those that
PyTorch itself derives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.graph.module import set_attribute
from foldproof.torch_internals import OpOverload, tree_leaves, tree_map

aten = torch.ops.aten


class Unreadable(Exception):
    """Inductor's loops contain something that has no reading; the message names it."""


@dataclass(frozen=True)
class Value:
    """A recorded value: its node, its example, and its text in a listing of the loop."""

    node: fx.Node
    example: Tensor
    text: str = ""

    @property
    def known(self) -> bool:
        """True if it depends on loop variables alone, so that the example is the value."""
        return self.example.device.type != "meta"


@dataclass(frozen=True)
class Literal:
    """A number in a loop, not rounded to its dtype."""

    number: bool | int | float
    dtype: torch.dtype

    @property
    def text(self) -> str:
        return repr(self.number)


Operand = Value | Literal


class Element(float):
    """A number that Inductor writes in place of an element of a constant: of a tensor by its index, or without one."""

    name: str
    index: int | None

    def __new__(cls, number: float, name: str, index: int | None) -> Element:
        made = super().__new__(cls, number)
        made.name, made.index = name, index
        return made

    def __getnewargs__(self) -> Any:  # copies keep the origin
        return float(self), self.name, self.index


class Recorder:
    """A graph under construction, with its attributes in ``root``; ``meta`` is what new nodes are labelled with.

    ``constants`` are those of the graph before it was lowered, by name.
    """

    def __init__(self, constants: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.constants = constants
        self.meta: Mapping[str, Any] = {}
        self._known: dict[str, Value] = {}
        self.chains: dict[tuple[str, fx.Node], tuple[Value, ...]] = {}
        """Operands of operations that were applied one after the other, by the last one's node."""

    def call(self, target: OpOverload, *args: Any, text: str = "", **kwargs: Any) -> Value:
        """Write a call of a functional operator with one result; equal calls are one node."""
        key = f"{target}{_written((args, kwargs))}"
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._add(target, args, kwargs, text)
        return found if found.text == text else Value(found.node, found.example, text)

    def call_for_two(self, target: OpOverload, *args: Value, text: str) -> tuple[Value, Value]:
        """Write a call of an operator with two results."""
        pair = self.add(target, args, {}, str(self.meta.get("name", "loop")))
        first, second = target(*(x.example.to("meta") for x in args))
        one, two = (self.add(getitem, (pair, i), {}, pair.name) for i in range(2))
        return Value(one, first, f"{text}[0]"), Value(two, second, f"{text}[1]")

    def add(self, target: Any, args: Any, kwargs: Any, name: str) -> fx.Node:
        """Write a node without an example: a call with several results, or with none."""
        args, kwargs = tree_map(_node_of, (args, kwargs))
        node = self.graph.create_node("call_function", target, args, dict(kwargs), name=name)
        node.meta = dict(self.meta)
        return node

    def hold(self, name: str, tensor: Tensor) -> Value:
        """Return a tensor as an attribute."""
        found = self._known.get(name)
        if found is None:
            set_attribute(self.root, name, tensor)
            example = torch.empty_like(tensor, device="meta", layout=torch.strided)
            found = self._known[name] = Value(self.graph.get_attr(name), example, name)
        return found

    def leaf(self, node: fx.Node, like: Tensor, meta: Mapping[str, Any]) -> Value:
        """Return an input or a constant as a value."""
        node.meta = dict(meta)
        return Value(node, torch.empty_like(like, device="meta"), node.name)

    def _add(self, target: OpOverload, args: Any, kwargs: Any, text: str) -> Value:
        values = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Value)]
        known = all(v.known for v in values)
        args_seen, kwargs_seen = tree_map(lambda x: _example_of(x, known), (args, kwargs))
        example = target(*args_seen, **kwargs_seen)
        return Value(self.add(target, args, kwargs, str(self.meta.get("name", "loop"))), example, text)


def _written(arguments: Any) -> str:
    return repr(tree_map(lambda x: f"%{x.node.name}" if isinstance(x, Value) else x, arguments))


def _node_of(x: Any) -> Any:
    return x.node if isinstance(x, Value) else x


def _example_of(x: Any, known: bool) -> Any:
    if not isinstance(x, Value):
        return x
    return x.example if known or not x.known else x.example.to("meta")


def expand(recorder: Recorder, x: Value, shape: Sequence[int]) -> Value:
    """Broadcast to a shape."""
    if list(x.example.shape) == list(shape):
        return x
    return recorder.call(aten.expand.default, x, list(shape), text=x.text)


def convert(recorder: Recorder, x: Value, dtype: torch.dtype) -> Value:
    """Convert to another dtype."""
    return x if x.example.dtype == dtype else recorder.call(aten._to_copy.default, x, dtype=dtype, text=x.text)


def reshape(recorder: Recorder, x: Value, shape: Sequence[int]) -> Value:
    """Give a value another shape, of as many elements."""
    if list(x.example.shape) == list(shape):
        return x
    return recorder.call(aten.reshape.default, x, list(shape), text=x.text)


def permute(recorder: Recorder, x: Value, order: Sequence[int]) -> Value:
    """Reorder the dimensions of a value."""
    if list(order) == list(range(len(order))):
        return x
    return recorder.call(aten.permute.default, x, list(order), text=x.text)
