"""The region of a rewrite: the program before, the program after, and the computation of new constants.

`graph.region` explains why a proof of the region holds for the whole program, and what the region has to contain. Here,
every node whose value changes is inside, with the calls that compute its constants, and every value read outside is a
result. The edits are the very functions that change the program afterwards, so that the change itself is proved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from foldproof.graph.nodes import set_sizes, value_readers
from foldproof.graph.region import Region, cut_region
from foldproof.log import log_caught
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import PlannedEdits
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.expression import Derived, as_expression


@dataclass(frozen=True)
class RewrittenRegion:
    """Two programs with the same inputs.

    ``copies`` maps the nodes of the region to those of ``before``; ``operands`` are the nodes behind the inputs.
    """

    before: GraphModule
    after: GraphModule
    copies: Mapping[Node, Any]
    operands: tuple[Node, ...]
    _drafted: PlannedEdits

    def derive(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the constants that only ``after`` has from those of ``before``, in float64 (or on shadows)."""
        old, new = (
            {str(node.target) for node in side.graph.nodes if node.op == "get_attr"}
            for side in (self.before, self.after)
        )
        read = new - old
        wanted = {
            row[one.role].name: (as_expression(one.expression), row[one.role].tensor.dtype)
            for edit, row in self._drafted
            for one in edit.wanted
            if row[one.role].name in read
        }
        values = Derived({name: expression for name, (expression, _) in wanted.items()}, parameters)
        return {name: value.to(wanted[name][1]) for name, value in values.items()}

    def inputs(self) -> list[Tensor]:
        """Return tensors of the shapes and dtypes of the inputs, with dynamic sizes as they were at export.

        A proof keeps whole numbers at their values, so these are 0 and 1: different rows of a table, and different
        sides of a mask. They are all 0 if the region does not run on that (a table of one row).
        """
        varied, zeros = ([_example(operand.meta["val"], limit) for operand in self.operands] for limit in (1, 0))
        if all(x.is_floating_point() for x in varied):
            return varied
        try:
            with torch.no_grad():
                self.before(*varied)
        except Exception as error:
            log_caught(error, "running a region on inputs of 0 and 1")
            return zeros
        return varied


def cut_rewrite(
    editor: GraphEditor,
    nodes: Iterable[Node],
    drafted: PlannedEdits,
    redirected: Mapping[Node, Node],
    *,
    known: Mapping[Node, Any] | None = None,
    before: PlannedEdits = (),
    without: Mapping[Node, Node] | None = None,
) -> RewrittenRegion:
    """Cut out the region of a rewrite, before and after.

    Args:
        editor: the editor of the program, which does not change here.
        nodes: all nodes whose values or operands change.
        drafted: the edits, with their constants.
        redirected: nodes of the region, each with the node that replaces it for its readers.
        known: operands that are numbers, with their values; by default the metadata of nodes without a tensor.
        before: edits to the program before as well, because the claim is not about them.
        without: approximations that the claim leaves out: nodes of the program before, each with its replacement.
    """
    constants, touched = editor.constants, list(nodes)
    inside = {*touched, *constants.computing(touched)}
    ordered = sorted(inside, key=editor.order)
    results = [node for node in ordered if not set(value_readers(node)) <= inside]
    numbers = known if known is not None else _numbers(ordered, constants)
    first, second = (cut_region(ordered, results, constants=constants.names, known=numbers) for _ in range(2))
    for old, new in (without or {}).items():
        first.copies[old].replace_all_uses_with(first.copies[new])
    tensors = dict(constants.tensors)
    _apply(first, before, tensors)
    _apply(second, drafted, tensors)
    for old, new in redirected.items():
        second.copies[old].replace_all_uses_with(second.copies[new])
    return RewrittenRegion(
        _module(first, tensors), _module(second, tensors), first.copies, first.inputs, tuple(drafted)
    )


def _apply(region: Region, drafted: PlannedEdits, tensors: dict[str, Tensor]) -> None:
    for edit, row in drafted:
        body = next(node for node in region.graph.nodes if node.op != "placeholder")
        with region.graph.inserting_before(body):
            new = {role: region.graph.get_attr(draft.name) for role, draft in row.items()}
        edit.apply(region.copies[edit.node], new)
        tensors.update({draft.name: draft.tensor for draft in row.values()})


def _module(region: Region, tensors: Mapping[str, Tensor]) -> GraphModule:
    region.graph.eliminate_dead_code()
    names = [str(node.target) for node in region.graph.nodes if node.op == "get_attr"]
    return GraphModule({name: tensors[name] for name in names}, region.graph)


def _numbers(nodes: Iterable[Node], constants: Constants) -> dict[Node, Any]:
    operands = dict.fromkeys(operand for node in nodes for operand in node.all_input_nodes)
    unknown = [x for x in operands if x not in constants.names and not isinstance(x.meta["val"], Tensor)]
    return {operand: set_sizes(operand.meta["val"]) for operand in unknown}


def _example(value: Tensor, limit: int) -> Tensor:
    shape = [max(set_sizes(size), 1) for size in value.shape]  # an empty tensor would show nothing
    if value.is_floating_point():
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(value.device, value.dtype)
    numbers = torch.arange(math.prod(shape)).clamp(max=limit).reshape(shape)  # ascending, so that offsets are valid
    return numbers.to(value.device, value.dtype)
