"""Where two graphs part: the first value of *before* that *after* never computes although the output needs it."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from foldproof.proof.question import Question
from foldproof.proof.residues import Attempt, run_both
from foldproof.shadow import Draw, Shadow, Undecided
from foldproof.verdict import Difference

_TORCH = os.path.dirname(torch.__file__) + os.sep


def source_line(node: fx.Node) -> str | None:
    """``file:line: code`` of the innermost frame in the node's stack trace that is not PyTorch's own."""
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]*)', trace)
    if not frames:
        return None
    own = [f for f in frames if not f[0].startswith(_TORCH)]
    file, line, code = (own or frames)[-1]
    return f"{file}:{line}: {code.strip()}"


def operator_name(node: fx.Node) -> str:
    """The operator as ATen names it (edge programs wrap it), or the node's kind."""
    if node.op != "call_function":
        return f"{node.op} {node.target}"
    return str(node.target if isinstance(node.target, OpOverload) else getattr(node.target, "_op", node.target))


def first_difference(question: Question, seed: int) -> Difference | None:
    """Run both graphs on shadows, and walk back from the output through the values that *after* does not have."""
    attempt = Attempt(Draw(seed, 2))
    results: dict[fx.Node, list[str]] = {}
    present: set[str] = set()

    def note(node: fx.Node, out: Any) -> None:
        results[node] = _digests(attempt.draw, out)

    def note_present(node: fx.Node, out: Any) -> None:
        present.update(_digests(attempt.draw, out))

    try:
        with torch.no_grad():
            run_both(question, attempt, question.general, (note, note_present))
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
    # Parameters may go (a fold takes them in); what matters is what is computed.
    ordered = [n for n in nodes if n in region and n.op not in ("placeholder", "get_attr")]
    if not ordered:
        return None
    head = ordered[0]
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
