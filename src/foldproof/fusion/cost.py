"""The cost of a fold: operator calls and memory traffic saved, and weights copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from foldproof.fusion.plan import Plan
from foldproof.fusion.result import Saving
from foldproof.graph.nodes import is_view, operator_node, set_sizes
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import PlannedConstant
from foldproof.rewriting.refusal import CannotFold


def compute_saving(plan: Plan, planned: Sequence[PlannedConstant], constants: Constants) -> Saving:
    """Compute the saving of a plan, at the sizes that the program was exported with.

    Raises:
        CannotFold: it needs copies of weights that other operators still read, and the copies are larger than the
            activations that it saves.
    """
    copying = [node for node in plan.folded if not is_view(node)]
    moved = sum(_count_bytes(x) for node in copying for x in (node, *_find_read(node, constants)))
    moved += sum(2 * round(_count_bytes(node) * share) for node, share in plan.cut.items())
    fewer = len(plan.folded) + max(0, len(plan.parts) - 1)
    if plan.reads is not None:  # the whole reads it once, the parts read it once each
        moved += fewer * _count_bytes(plan.reads)
    changed = {*(operator_node(edit.node) for edit in plan.edits), *plan.context, *plan.folded}
    wanted = [new for edit in plan.edits for new in edit.wanted]
    new = {constant.name: (constant, w) for constant, w in zip(planned, wanted, strict=True)}
    copies = 0
    for constant, w in new.values():
        if constant.name in constants.tensors:  # made by an earlier fold
            continue
        names = dict.fromkeys((w.like, *w.others))
        old = [name for name in names if not _is_kept(name, changed, constants)]
        if plan.parts and w.role == "bias" and len(old) == len(names):
            continue  # missing biases become zeros, which cost nothing worth counting
        copies += max(0, constant.tensor.nbytes - sum(constants.tensors[name].nbytes for name in old))
    if fewer and copies > moved:
        raise CannotFold(
            f"it would need {copies} more bytes of weights, because other operators read the old ones or they grow, to"
            f" save {moved} bytes of activations at each call",
            "untie the weights",
        )
    return Saving(fewer, moved, copies)


def _find_read(node: Node, constants: Constants) -> list[Node]:
    """Return the first operand that is no constant, if there is one."""
    return [operand for operand in node.all_input_nodes if not constants.holds(operand)][:1]


def _is_kept(name: str, changed: set[Node], constants: Constants) -> bool:
    return any(_is_read(node, changed, constants) for node in constants.nodes_of(name))


def _is_read(node: Node, changed: set[Node], constants: Constants) -> bool:
    """Return True if an unchanged node reads a constant, directly or through other constants computed from it."""
    return any(
        _is_read(user, changed, constants) if constants.holds_computed(user) else user not in changed
        for user in node.users
    )


def _count_bytes(node: Node) -> int:
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return 0
    return int(torch.Size(set_sizes(value.shape)).numel()) * value.element_size()
