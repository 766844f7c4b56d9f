"""Code generation: two graphs as runnable Python, with marks on the lines that only one of them computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.log import Change
from foldproof.auditing.reading import written
from foldproof.auditing.snapshot import Snapshot
from foldproof.auditing.specification import TensorSpec, name_function
from foldproof.graph.diff import LabelledGraph, diff_graphs
from foldproof.graph.module import get_attribute
from foldproof.operators import find_operator

SMALL = 64
"""Largest number of elements of a tensor that is written out; larger ones are replaced by new tensors of that shape."""


def write_listing(change: Change, inputs: Sequence[Any]) -> str:
    """Write a Python file with functions ``before`` and ``after``, and a call of both on ``inputs``."""
    before, after = find_differences(change)
    given = ", ".join(_write_tensor(x) if isinstance(x, Tensor) else repr(x) for x in inputs)
    lines = [
        f'"""The graph before and after {change.name or change.note}. Lines marked <<< have no equal in the other."""',
        "",
        "import operator",
        "",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import nn",
        "",
        "",
        *_write_function("before", change.before, before),
        "",
        "",
        *_write_function("after", change.after, after),
        "",
        "",
        'if __name__ == "__main__":',
        "    with torch.no_grad():",
        *(f"        print({name!r}, {name}({given}))" for name in ("before", "after")),
    ]
    return "\n".join(lines) + "\n"


def find_differences(change: Change) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """Return the calls (see `diff_graphs`) and constants of each graph without an equal one in the other."""
    before, after = change.before.label(), change.after.label()
    diff = diff_graphs(before, after)
    return diff.only_before | _find_missing(before, after), diff.only_after | _find_missing(after, before)


def _find_missing(one: LabelledGraph, other: LabelledGraph) -> frozenset[fx.Node]:
    there = set(other.leaves.values())
    return frozenset(n for n, leaf in one.leaves.items() if n.op == "get_attr" and leaf not in there)


def _write_function(name: str, snapshot: Snapshot, differs: frozenset[fx.Node]) -> list[str]:
    inputs = [n.name for n in snapshot.placeholders]
    out = [f"def {name}({', '.join(inputs)}):"]
    for node in snapshot.graph.nodes:
        line = _write_line(node, snapshot)
        if line is not None:
            out.append(f"    {line}{'  # <<<' if node in differs else ''}")
    return out


def _write_line(node: fx.Node, snapshot: Snapshot) -> str | None:
    args = [_write_value(a) for a in node.args]
    given = ", ".join([*args, *(f"{k}={_write_value(v)}" for k, v in node.kwargs.items())])
    if node.op == "placeholder" or (node.op == "get_attr" and not node.users):
        return None
    if node.op == "output":
        return f"return {node.args[0]!r}"
    if node.op == "get_attr":
        value = get_attribute(snapshot.module, str(node.target))
        return f"{node.name} = {_write_tensor(value) if isinstance(value, Tensor) else repr(value)}  # {node.target}"
    if node.op == "call_method":
        return f"{node.name} = {args[0]}.{node.target}({', '.join(args[1:])})"
    if node.op == "call_module":
        module = snapshot.module.get_submodule(str(node.target))
        state = ", ".join(f"{name!r}: {_write_tensor(t)}" for name, t in module.state_dict().items())
        made = f"nn.{module!r}".replace("\n", " ") + ("" if module.training else ".eval()")
        return f"{node.name} = torch.func.functional_call({made}, {{{state}}}, ({given},))"
    aten = find_operator(node.target)
    return f"{node.name} = {f'torch.ops.{aten}' if aten is not None else name_function(node.target)}({given})"


def _write_value(x: Any) -> str:
    return written(x, lambda n: n.name)


def _write_tensor(x: Tensor) -> str:
    x = x.detach()
    if x.numel() <= SMALL:
        dtype = "" if x.dtype in (torch.float32, torch.int64, torch.bool) else f", dtype={x.dtype}"
        return f"torch.tensor({x.tolist()}{dtype})"
    return TensorSpec(tuple(x.shape), x.dtype).write_code("ones" if not x.dtype.is_floating_point else "rand")
