"""What people want to know of a graph's node: which operator it calls, and which line of theirs made it."""

from __future__ import annotations

import os
import re

import torch
from torch import fx
from torch._ops import OpOverload

_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_TORCH = os.path.dirname(torch.__file__) + os.sep


def operator_name(node: fx.Node) -> str:
    """What the node calls: ``aten.conv2d.default``, in edge programs too; for other nodes their kind."""
    if node.op != "call_function":
        return node.op
    return str(node.target if isinstance(node.target, OpOverload) else getattr(node.target, "_op", node.target))


def source_of(node: fx.Node) -> str | None:
    """``file:line`` of the model's own code that made the node; else the module it stands in, by its path.

    Files below the working directory are named from there.
    """
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in frames if not file.startswith(_TORCH)]
    if own:
        return f"{_short(own[-1][0])}:{own[-1][1]}"
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    if modules and modules[-1][0]:
        return f"module {modules[-1][0]}"
    return "{}:{}".format(*frames[-1]) if frames else None


def _short(file: str) -> str:
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
