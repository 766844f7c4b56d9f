"""Nodes as text: the called operator, the line of the model that made it, and the arguments."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.operators import find_operator
from foldproof.torch_internals import HigherOrderOperator, OpOverload, OpOverloadPacket, qualified_name, tree_leaves

_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_TORCH = os.path.dirname(torch.__file__) + os.sep


class Verbatim:
    """Text without quotes in the ``repr`` of a list or dict around it, in place of a node."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def map_nodes(arguments: Any, function: Callable[[fx.Node], Any]) -> Any:
    """Return the arguments of a node with ``function`` applied to every node in them; it may return anything."""
    return fx.map_arg(arguments, function)


def write_arguments(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """Return the arguments of a node as text, equal for equal arguments only, with names in place of nodes."""

    def named(n: fx.Node) -> Any:
        return Verbatim(f"%{names[n]}")

    text = repr((map_nodes(node.args, named), map_nodes(node.kwargs, named)))
    if "tensor(" in text:  # tensors are printed in part, and rounded
        text += repr([x.tolist() for x in tree_leaves((node.args, node.kwargs)) if isinstance(x, Tensor)])
    return text


def target_name(target: Any) -> str:
    """Return the name of a node's target; `identify_target` distinguishes targets of one name."""
    if isinstance(target, (str, OpOverload, OpOverloadPacket, HigherOrderOperator)):
        return str(target)
    if isinstance(target, functools.partial):
        return f"partial {getattr(target.func, '__qualname__', target.func)}"
    name = getattr(target, "__qualname__", None)
    return f"{getattr(target, '__module__', '')}.{name}" if name else repr(target)


def identify_target(target: Any) -> str:
    """Return the `target_name`, made unique: many lambdas have one name."""
    known = isinstance(target, (str, OpOverload, OpOverloadPacket, HigherOrderOperator))
    return target_name(target) if known else f"{target_name(target)} {id(target)}"


def operator_name(node: fx.Node) -> str:
    """Return the callee as ``aten.conv2d.default``, in edge programs too; the kind of a node that calls no function.

    A Python function has its qualified name, without the address that it would be printed with.
    """
    if node.op != "call_function":
        return node.op
    target: Any = node.target
    found = find_operator(target)
    if found is not None:
        return str(found)
    is_named = inspect.isroutine(target) and target.__name__ != "<lambda>"
    return qualified_name(target) if is_named else target_name(target)


def source_of(node: fx.Node) -> str | None:
    """Return ``file:line`` of the model's own code that made the node; else the path of its module.

    Files below the working directory have relative names.
    """
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in frames if not file.startswith(_TORCH)]
    if own:
        return f"{_short(own[-1][0])}:{own[-1][1]}"
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    if modules and modules[-1][0]:
        return f"module {modules[-1][0]}"
    return "{}:{}".format(*frames[-1]) if frames else None


def module_of(node: fx.Node) -> str | None:
    """Return the path of the innermost module whose call made the node, such as ``layers.11.mlp``; None if unknown."""
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    return modules[-1][0] or None if modules else None


def _short(file: str) -> str:
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
