"""What a fold saves, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from foldproof.fusion.constants import Constants
from foldproof.fusion.nodes import operator_node, set_sizes
from foldproof.fusion.plan import Plan
from foldproof.fusion.refusal import CannotFold
from foldproof.fusion.result import Saving
from foldproof.fusion.surgery import Draft


def saving(plan: Plan, drafts: Sequence[Draft], constants: Constants) -> Saving:
    """What a plan saves, at the sizes that the program was exported with.

    Raises:
        CannotFold: it needs copies of weights that other operators go on reading, and these are larger than what it
            saves in activations that need not be moved.
    """
    moved = sum(_bytes(node) + _bytes(node.all_input_nodes[0]) for node in plan.folded)
    changed = {operator_node(edit.node) for edit in plan.edits}
    new = {draft.name: draft for draft in drafts if draft.name not in constants.tensors}  # else made by an earlier fold
    copies = 0
    for draft in new.values():
        kept = any(_is_read(node, changed, constants) for node in constants.nodes_of(draft.like))
        copies += max(0, draft.tensor.nbytes - (0 if kept else constants.tensors[draft.like].nbytes))
    if plan.folded and copies > moved:
        raise CannotFold(
            f"it would need {copies} bytes more of weights, because other operators read the old ones or they grow, to"
            f" save {moved} bytes of activations at each call",
            "untie the weights",
        )
    return Saving(len(plan.folded), moved, copies)


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
