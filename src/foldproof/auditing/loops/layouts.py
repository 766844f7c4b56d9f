"""Inductor's nodes as places in memory: buffers, views of them, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from foldproof.auditing.loops.memory import Memory, Place
from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value, expand
from foldproof.torch_internals import inductor_ir

aten = torch.ops.aten


class Layouts:
    """Reading and writing of whole nodes, at the strides of their layouts."""

    def __init__(self, recorder: Recorder, memory: Memory) -> None:
        self._recorder, self._memory = recorder, memory

    def number(self, x: Any) -> Any:
        """Return a size as an integer, in an argument; other arguments as they are.

        Raises:
            Unreadable: the size is a symbol.
        """
        if not hasattr(x, "free_symbols"):
            return x
        if x.free_symbols:
            raise Unreadable(f"the size {x} is not known")
        return bool(x) if x.is_Boolean else int(x) if x.is_integer else float(x)

    def integers(self, xs: Any) -> tuple[int, ...]:
        return tuple(int(self.number(x)) for x in xs)

    def place(self, node: Any) -> tuple[Place, torch.dtype]:
        """Return the place of a node in the memory of its buffer, and its dtype."""
        ir = inductor_ir()
        node = unboxed(node)
        if not isinstance(node, (ir.Buffer, ir.ReinterpretView)):
            raise Unreadable(f"no reading of a {type(node).__name__}")
        layout = node.layout if isinstance(node, ir.ReinterpretView) else node.get_layout()
        if isinstance(layout, ir.MutationLayoutSHOULDREMOVE):
            layout = layout.real_layout()
        offset = int(self.number(layout.offset))
        return Place(self.integers(layout.size), self.integers(layout.stride), offset), layout.dtype

    def read(self, node: Any, whole: Mapping[str, Value]) -> Value:
        """Return a node's value."""
        ir = inductor_ir()
        node = unboxed(node)
        if isinstance(node, ir.Constant):
            return self._recorder.call(aten.full.default, [], node.value, dtype=node.dtype, text=repr(node.value))
        if isinstance(node, ir.Buffer) and node.get_name() in whole:
            return whole[node.get_name()]
        place, dtype = self.place(node)
        value = self._memory.read(node.get_name(), place)
        if value.example.dtype != dtype:
            raise Unreadable(f"{node.get_name()} is read as {dtype}")
        value = expand(self._recorder, value, place.sizes)
        return Value(value.node, value.example, node.get_name())

    def write(self, node: Any, value: Value) -> None:
        """Write a node's value."""
        place, _ = self.place(node)
        self._memory.write(unboxed(node).get_name(), place, value)


def unboxed(node: Any) -> Any:
    """Return the buffer or view inside of Inductor's boxes."""
    while isinstance(node, inductor_ir().MutableBox):
        node = node.data
    return node
