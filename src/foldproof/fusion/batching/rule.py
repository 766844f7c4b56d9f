"""The rule that joins linear operators that read one tensor, or have equal sizes, into one operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch.fx import Graph, Node

from foldproof.fusion import examples
from foldproof.fusion.batching.members import Group, Member, find_groups, list_views
from foldproof.fusion.batching.timing import require_faster
from foldproof.fusion.batching.whole import Concatenated, Join, Stacked, Whole
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.plan import Plan
from foldproof.graph.nodes import arguments, listed, operator_of
from foldproof.graph.text import operator_name
from foldproof.operators import is_functional, is_pointwise
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit
from foldproof.rewriting.refusal import CannotFold


class BatchLinears:
    """x W₁ᵀ + b₁, …, x Wₙᵀ + bₙ = the parts, along the last axis, of x [W₁; …; Wₙ]ᵀ + [b₁; …; bₙ].

    The same holds for products with constant matrices, and for convolutions of equal geometry along their output
    channels. For matrices of equal sizes that read a tensor each: x₁W₁ᵀ, …, xₙWₙᵀ = the parts of one batch of products.
    Weights are joined once, at rewriting; a missing bias becomes zeros if another member has one. The parts are views.
    If the same pointwise operator is the only reader of every part, it is applied once, to the whole.

    The sums are the same, but may be added in another order, and the speed depends on the machine and on the shapes. So
    the rule has to be requested, and a group is joined only if that is measured to be faster. `batch_linears_bitwise`
    requires in addition that all bits agree on all tried inputs, which holds for this machine only.
    """

    fires: tuple[Fires, ...] = examples.batching_fires
    declines: tuple[Declines, ...] = examples.batching_declines

    def __init__(self, id: str, *, bitwise: bool) -> None:
        self.id = id
        self.bitwise = bitwise

    def find_groups(self, graph: Graph, constants: Constants) -> list[Group]:
        """Find groups of operators that may be joined, in the order of the graph."""
        return find_groups(graph.nodes, constants.holds)

    def plan(self, group: Group, constants: Constants) -> Plan:
        """Plan to join a group.

        Raises:
            CannotFold: the joined operator would be another function; the message has the reason.
        """
        members = group.members
        for x in group.reads:
            constants.require_lasting(x)
        names = [_find_names(member, constants) for member in members]
        _require_alike("weights", members, [constants.tensors[weight].requires_grad for weight, _ in names])
        biased = {one: constants.tensors[bias].requires_grad for one, (_, bias) in zip(members, names) if bias}
        _require_alike("biases", list(biased), list(biased.values()))
        tails = _find_tails(members, constants)
        join: Join = Concatenated(members) if group.is_shared else Stacked(members)
        whole = Whole(members, join, tails)
        results = [tail[-1] for tail in tails]
        edits = [Edit("", node, (), partial(whole.install, i)) for i, node in enumerate(results)]
        last = replace(edits.pop(0), rule=join.name, wanted=whole.constants(names, constants))
        between = [node for tail in tails for node in tail[:-1]]
        return Plan(
            source=self.id,
            folded=[],
            edits=[*edits, last],
            parts=dict(zip(results, whole.parts(), strict=True)),
            reads=members[0].x if group.is_shared else None,
            context=[*(_list_views(members) if group.is_shared else []), *between],
            judge=partial(require_faster, bitwise=self.bitwise),
        )


ANY_ROUNDING = BatchLinears("batch_linears", bitwise=False)
"""Rule under which results may be rounded differently."""
BITWISE = BatchLinears("batch_linears_bitwise", bitwise=True)
"""Rule under which every bit has to agree on all tried inputs, on this machine."""
BATCHING = (ANY_ROUNDING, BITWISE)


def _find_tails(group: Sequence[Member], constants: Constants) -> list[list[Node]]:
    """List each member with the pointwise operators after it, as far as these are the same for all members."""
    tails = [[member.node] for member in group]
    while True:
        readers = [list(tail[-1].users) for tail in tails]
        if any(len(row) != 1 or not _is_pointwise(row[0]) or constants.is_written(row[0]) for row in readers):
            return tails
        nexts = [row[0] for row in readers]
        if len({(node.target, str(node.args[1:]), str(node.kwargs)) for node in nexts}) > 1:
            return tails
        for tail, node in zip(tails, nexts, strict=True):
            tail.append(node)


def _is_pointwise(node: Node) -> bool:
    """Return True for a function of each element of its first argument, and of plain numbers."""
    found = operator_of(node)
    return (
        found is not None
        and is_pointwise(found)
        and is_functional(found, arguments(node))
        and [x for x in (*node.args, *node.kwargs.values()) if isinstance(x, Node)] == [*node.args[:1]]
    )


def _require_alike(what: str, group: Sequence[Member], is_trained: Sequence[bool]) -> None:
    if len(set(is_trained)) > 1:
        trained = [one.node for one, wants_gradient in zip(group, is_trained, strict=True) if wants_gradient]
        raise CannotFold(
            f"the {what} of {listed(trained)} are trained and those of the others are not, so they can't be joined",
            "call requires_grad_(False) on all of them, or on none",
        )


def _list_views(group: Sequence[Member]) -> list[Node]:
    """List the views by which members read one tensor, if they don't read one node."""
    reads = dict.fromkeys(member.x for member in group)
    return list(dict.fromkeys(view for x in reads for view in list_views(x))) if len(reads) > 1 else []


def _find_names(member: Member, constants: Constants) -> tuple[str, str | None]:
    """Return the names of the weight and of the bias, if there is one."""
    if constants.is_written(member.node):
        raise CannotFold(f"the output of {member.node.name} is changed in place")
    weight = _find_name(member.transposed or member.weight, f"the weight of {member.node.name}", constants)
    return weight, None if member.bias is None else _find_name(
        member.bias, f"the bias of {member.node.name}", constants
    )


def _find_name(node: Node, what: str, constants: Constants) -> str:
    found = constants.expression(node, what)
    if not isinstance(found, str):
        raise CannotFold(f"{what} is computed in the graph by {node.name} ({operator_name(node)})")
    return found
