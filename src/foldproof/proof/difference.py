"""Where two graphs part: the first value of *before* that *after* never computes although the output needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from foldproof.digest import digest
from foldproof.graph.text import operator_name, source_of
from foldproof.proof.attempt import lending, run_both
from foldproof.proof.obligation import ProofObligation
from foldproof.proof.variation import vary
from foldproof.shadow import SamplePoint, Shadow, Undecided
from foldproof.torch_internals import disable_current_modes, tree_leaves
from foldproof.verdict import Difference


def first_difference(obligation: ProofObligation, seed: int) -> Difference | None:
    """Run both graphs on shadows, and walk back from the output through the values that *after* does not have."""
    variation = vary(obligation, obligation.general)
    results: dict[fx.Node, list[str]] = {}
    present: set[str] = set()

    def note(node: fx.Node, out: Any) -> None:
        results[node] = _digests(out)

    def note_present(node: fx.Node, out: Any) -> None:
        present.update(_digests(out))

    try:
        with torch.no_grad():
            lending(
                obligation,
                lambda lent: run_both(obligation, SamplePoint(seed, 2), variation, lent, (note, note_present)),
            )
    except Undecided:
        return None
    nodes = obligation.before.nodes()
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
    return Difference(head.name, operator_name(head), source_of(head), tuple(n.name for n in ordered))


def _digests(out: Any) -> list[str]:
    with disable_current_modes():  # residues that are made on demand are drawn
        return [_digest(t) for t in tree_leaves(out) if isinstance(t, Tensor)]


def _digest(t: Tensor) -> str:
    """A fingerprint of the elements in order, whatever the shape, so that views are the same value."""
    return digest(
        [part.to(torch.int32) for part in t.residue.parts] if isinstance(t, Shadow) else [t.to(torch.float64)]
    )
