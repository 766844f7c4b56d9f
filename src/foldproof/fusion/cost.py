"""What a fold saves, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from foldproof.fusion.plan import Plan
from foldproof.fusion.result import Saving
from foldproof.graph.nodes import operator_node, set_sizes
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import PlannedConstant
from foldproof.rewriting.refusal import CannotFold


def saving(plan: Plan, drafts: Sequence[PlannedConstant], constants: Constants) -> Saving:
    """What a plan saves, at the sizes that the program was exported with.

    Raises:
        CannotFold: it needs copies of weights that other operators go on reading, and these are larger than what it
            saves in activations that need not be moved.
    """
    moved = sum(_bytes(node) + _bytes(node.all_input_nodes[0]) for node in plan.folded)
    fewer = len(plan.folded) + max(0, len(plan.parts) - 1)
    if plan.reads is not None:  # once, where each part read it
        moved += fewer * _bytes(plan.reads)
    changed = {*(operator_node(edit.node) for edit in plan.edits), *plan.context}
    wanted = [new for edit in plan.edits for new in edit.wanted]
    new = {draft.name: (draft, w) for draft, w in zip(drafts, wanted, strict=True)}
    copies = 0
    for draft, w in new.values():
        if draft.name in constants.tensors:  # made by an earlier fold
            continue
        names = dict.fromkeys((w.like, *w.others))
        old = [name for name in names if not _is_kept(name, changed, constants)]
        if plan.parts and w.role == "bias" and len(old) == len(names):
            continue  # it only grows by zeros where there was none
        copies += max(0, draft.tensor.nbytes - sum(constants.tensors[name].nbytes for name in old))
    if fewer and copies > moved:
        raise CannotFold(
            f"it would need {copies} bytes more of weights, because other operators read the old ones or they grow, to"
            f" save {moved} bytes of activations at each call",
            "untie the weights",
        )
    return Saving(fewer, moved, copies)


def _is_kept(name: str, changed: set[Node], constants: Constants) -> bool:
    return any(_is_read(node, changed, constants) for node in constants.nodes_of(name))


def _is_read(node: Node, changed: set[Node], constants: Constants) -> bool:
    """Is a constant read, perhaps through what is computed from it, by others than the nodes that are changed?"""
    return any(
        _is_read(user, changed, constants) if constants.holds_computed(user) else user not in changed
        for user in node.users
    )


def _bytes(node: Node) -> int:
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return 0
    return int(torch.Size(set_sizes(value.shape)).numel()) * value.element_size()
