"""A linear operator that takes in the one before it (linear–linear, 1×1–1×1, 1×1–k×k), where that pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging.maps import TakesLonger, compose, find_rank, plan_edit, read_step, require_no_more_work
from foldproof.fusion.plan import Plan
from foldproof.graph.nodes import listed, value_readers
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold


class ConsecutiveLinears:
    """W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂), for linears, and for convolutions of which one has kernels of size 1.

    A 1×1 convolution before a larger one may have a bias only if the larger one pads nothing, because zeros are padded
    behind the bias. The two are merged only if that takes no more multiplications: not where the value between them has
    few channels. A table in front of a linear becomes one table, if that takes no more memory.
    """

    id = "consecutive_linears"
    fires: tuple[Fires, ...] = examples.consecutive_fires
    declines: tuple[Declines, ...] = examples.consecutive_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for a convolution or linear that alone reads another one."""
        rank = find_rank(node, constants)
        return rank is not None and any(
            find_rank(x, constants) == rank and not constants.holds(x) and len(value_readers(x)) == 1
            for x in node.all_input_nodes
        )

    def plans(self, node: Node, constants: Constants) -> Iterator[Plan]:
        """Yield the plan to let ``node`` compute what it and the operator before it compute.

        Raises:
            CannotFold: it would take more multiplications.
        """
        rank = find_rank(node, constants)
        assert rank is not None
        refusal: CannotFold | None = None
        with suppress(CannotFold):  # one of the weights is no constant, or both have large kernels
            outer = read_step(node, rank, constants)
            merged = compose(outer, read_step(outer.x, rank, constants))
            constants.require_lasting(merged.x)
            try:
                require_no_more_work(merged.merged_work, merged.work)
            except TakesLonger as longer:
                refusal = CannotFold(f"{listed([outer.x, node])} are not merged into one operator: {longer}")
            else:
                edit = plan_edit(merged, "linear operator", constants)
                yield Plan(self.id, [outer.x], edits=[edit], products=merged.products)
        if refusal is not None:
            raise refusal
