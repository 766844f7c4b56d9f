"""Two graphs as Python that runs, with what only one of them computes marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.log import Change
from foldproof.auditing.reading import written
from foldproof.auditing.snapshot import Snapshot
from foldproof.auditing.specification import TensorSpec, function_name
from foldproof.graph.diff import LabelledGraph, diff_graphs
from foldproof.graph.module import get_attribute
from foldproof.operators import find_operator

SMALL = 64
"""Tensors of up to so many elements are written out; larger ones are made anew in their shape."""


def listing(change: Change, inputs: Sequence[Any]) -> str:
    """A file with functions ``before`` and ``after``, and a call of both on ``inputs``."""
    before, after = differing(change)
    given = ", ".join(_tensor(x) if isinstance(x, Tensor) else repr(x) for x in inputs)
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
        *_function("before", change.before, before),
        "",
        "",
        *_function("after", change.after, after),
        "",
        "",
        'if __name__ == "__main__":',
        "    with torch.no_grad():",
        *(f"        print({name!r}, {name}({given}))" for name in ("before", "after")),
    ]
    return "\n".join(lines) + "\n"


def differing(change: Change) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    """The calls (see `diff_graphs`) and the constants of each graph that have no equal in the other."""
    before, after = change.before.labelled(), change.after.labelled()
    diff = diff_graphs(before, after)
    return diff.only_before | _missing(before, after), diff.only_after | _missing(after, before)


def _missing(one: LabelledGraph, other: LabelledGraph) -> frozenset[fx.Node]:
    there = set(other.leaves.values())
    return frozenset(n for n, leaf in one.leaves.items() if n.op == "get_attr" and leaf not in there)


def _function(name: str, snapshot: Snapshot, differs: frozenset[fx.Node]) -> list[str]:
    inputs = [n.name for n in snapshot.placeholders]
    out = [f"def {name}({', '.join(inputs)}):"]
    for node in snapshot.graph.nodes:
        line = _line(node, snapshot)
        if line is not None:
            out.append(f"    {line}{'  # <<<' if node in differs else ''}")
    return out


def _line(node: fx.Node, snapshot: Snapshot) -> str | None:
    args = [_text(a) for a in node.args]
    given = ", ".join([*args, *(f"{k}={_text(v)}" for k, v in node.kwargs.items())])
    if node.op == "placeholder" or (node.op == "get_attr" and not node.users):
        return None
    if node.op == "output":
        return f"return {node.args[0]!r}"
    if node.op == "get_attr":
        value = get_attribute(snapshot.module, str(node.target))
        return f"{node.name} = {_tensor(value) if isinstance(value, Tensor) else repr(value)}  # {node.target}"
    if node.op == "call_method":
        return f"{node.name} = {args[0]}.{node.target}({', '.join(args[1:])})"
    if node.op == "call_module":
        module = snapshot.module.get_submodule(str(node.target))
        state = ", ".join(f"{name!r}: {_tensor(t)}" for name, t in module.state_dict().items())
        made = f"nn.{module!r}".replace("\n", " ") + ("" if module.training else ".eval()")
        return f"{node.name} = torch.func.functional_call({made}, {{{state}}}, ({given},))"
    aten = find_operator(node.target)
    return f"{node.name} = {f'torch.ops.{aten}' if aten is not None else function_name(node.target)}({given})"


def _text(x: Any) -> str:
    return written(x, lambda n: n.name)


def _tensor(x: Tensor) -> str:
    x = x.detach()
    if x.numel() <= SMALL:
        dtype = "" if x.dtype in (torch.float32, torch.int64, torch.bool) else f", dtype={x.dtype}"
        return f"torch.tensor({x.tolist()}{dtype})"
    return TensorSpec(tuple(x.shape), x.dtype).code("ones" if not x.dtype.is_floating_point else "rand")
