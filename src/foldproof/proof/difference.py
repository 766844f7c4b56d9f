"""Where two graphs part: the first value of *before* that *after* never computes although the output needs it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from foldproof.proof.question import Question
from foldproof.proof.residues import copies, run_copied, shadows_of
from foldproof.shadow import Draw, Factories, Shadow, Undecided
from foldproof.verdict import Difference


def source_line(node: fx.Node) -> str | None:
    """``file:line: code`` of the user's innermost frame in the node's stack trace."""
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]*)', trace)
    if not frames:
        return None
    file, line, code = frames[-1]
    return f"{file}:{line}: {code.strip()}"


def operator_name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_function" else f"{node.op} {node.target}"


def first_difference(question: Question, seed: int) -> Difference | None:
    """Run both graphs on shadows, and walk back from the output through the values that *after* does not have."""
    draw = Draw(seed, 2)
    results: dict[fx.Node, list[str]] = {}
    present: set[str] = set()

    def note(node: fx.Node, out: Any) -> None:
        results[node] = _digests(draw, out)

    try:
        with torch.no_grad():
            leaves, inputs = shadows_of(question, draw, question.general)
            with Factories(draw):
                run_copied(question.before, "first", copies(leaves), *copies(inputs), note)
                other = question.after(copies(leaves))
                run_copied(other.after, "second", other.leaves, *copies(inputs), lambda n, out: present.update(_digests(draw, out)))
    except Undecided:
        return None
    nodes = question.before.nodes()
    if not nodes or not present:
        return None

    def lost(node: fx.Node) -> bool:
        return not set(results.get(node, ())) <= present

    output = next(n for n in reversed(nodes) if n.op == "output")
    region: set[fx.Node] = set()
    frontier = [n for n in output.all_input_nodes if lost(n)]
    while frontier:
        node = frontier.pop()
        if node not in region:
            region.add(node)
            frontier += [n for n in node.all_input_nodes if lost(n)]
    ordered = [n for n in nodes if n in region]
    if not ordered:
        return None
    head = next((n for n in ordered if n.op not in ("placeholder", "get_attr")), ordered[0])
    return Difference(head.name, operator_name(head), source_line(head), tuple(n.name for n in ordered))


def _digests(draw: Draw, out: Any) -> list[str]:
    return [_digest(draw, t) for t in tree_leaves(out) if isinstance(t, Tensor)]


def _digest(draw: Draw, t: Tensor) -> str:
    """A fingerprint of the elements in order, whatever the shape, so that views are the same value."""
    state = hashlib.sha256()
    if isinstance(t, Shadow):
        for field, part in zip(draw.fields, t.residue.parts):
            state.update(field.canonical(part).to(torch.int32).contiguous().cpu().numpy().tobytes())
    else:
        state.update(t.detach().to(torch.float64).contiguous().cpu().numpy().tobytes())
    return state.hexdigest()
