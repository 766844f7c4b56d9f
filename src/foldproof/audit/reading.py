"""How operators that only pipelines know are read: as the ATen operator that they stand for."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload


def read(target: Any) -> Any:
    """The operator that ``target`` stands for, with the same arguments; most stand for themselves.

    ExecuTorch keeps operators from being decomposed by calling them by another namespace for a while.
    """
    if isinstance(target, OpOverload) and target.namespace == "EDGE_DO_NOT_DECOMP":
        packet = getattr(torch.ops.aten, target._schema.name.split("::")[1])
        return getattr(packet, target._overloadname)
    return target


def operator(target: Any) -> OpOverload | None:
    """The ATen operator that a target is or (in edge programs) wraps."""
    found = target if isinstance(target, OpOverload) else getattr(target, "_op", None)
    return found if isinstance(found, OpOverload) else None


def functional_node(node: fx.Node) -> tuple[Any, dict[str, Any]] | None:
    """For a node that writes its result into memory given as ``out``: the operator that returns it, and its kwargs.

    Which memory that is, and whether it is used twice at a time, is below the graph.
    """
    target = operator(node.target)
    if node.op != "call_function" or target is None or not target._schema.is_mutable:
        return None
    found = _functional(target)
    if found is None:
        return None
    functional, outs = found
    kwargs = {name: value for name, value in node.kwargs.items() if name not in outs}
    if any(a.name == "dtype" for a in functional._schema.arguments) and "dtype" not in kwargs:
        memory = next((v for name, v in node.kwargs.items() if name in outs), None)
        if not isinstance(memory, fx.Node) or not memory.args or not isinstance(memory.args[0], (tuple, list)):
            return None
        kwargs["dtype"] = memory.args[0][1]  # ExecuTorch's alloc takes ((shape, dtype),)
    return functional, kwargs


_OPTIONS = ("dtype", "layout", "device", "pin_memory", "memory_format")


@functools.cache
def _functional(target: OpOverload) -> tuple[OpOverload, frozenset[str]] | None:
    outs = frozenset(a.name for a in target._schema.arguments if a.is_out)
    written = {a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    if not outs or written != outs:
        return None
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments if a.name not in outs]
    packet = target.overloadpacket
    for name in packet.overloads():
        other = getattr(packet, name)
        has = [(a.name, str(a.type)) for a in other._schema.arguments]
        # What the memory that is written to decides, the functional form is told.
        same = has == wanted or [a for a in has if a[0] not in _OPTIONS] == wanted
        if same and not other._schema.is_mutable and len(other._schema.returns) == len(outs):
            return other, outs
    return None
