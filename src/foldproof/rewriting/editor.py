"""The editor of a program: it adds constants, redirects readers, and erases calls without readers."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from foldproof.errors import FoldproofError, brief
from foldproof.graph.nodes import arguments, is_getitem, operator_of
from foldproof.operators import is_functional
from foldproof.program.state import owned, quiet_copies
from foldproof.rewriting.edit import Edit, NewConstant, PlannedConstant, PlannedEdits
from foldproof.rewriting.exported_host import ExportedHost
from foldproof.rewriting.expression import Derived, Expression, as_expression, rounded
from foldproof.rewriting.host import GraphHost
from foldproof.rewriting.module import ModuleHost
from foldproof.rewriting.refusal import CannotFold
from foldproof.torch_internals import FakeTensor

DIALECTS = ("TRAINING", "ATEN", "EDGE")
"""Dialects of ``torch.export.export``, of ``run_decompositions``, and of ExecuTorch's ``to_edge``."""


class GraphEditor:
    """The changes to one program."""

    def __init__(self, host: GraphHost) -> None:
        self.host, self.graph, self.constants = host, host.graph, host.constants
        self._drafts: dict[tuple[Expression, torch.dtype], PlannedConstant] = {}
        self._nodes = {name: node for node, name in host.constants.names.items()}
        self._erased: dict[str, str] = {}
        self._numbers = Counter[str]()
        self._places = {node: place for place, node in enumerate(host.graph.nodes)}

    @staticmethod
    def on_copy(program: GraphModule | ExportedProgram) -> GraphEditor:
        """Edit a working copy of a program; the two share the tensors that stay.

        Raises:
            FoldproofError: the program is in a dialect that cannot be changed any more.
        """
        if isinstance(program, GraphModule):
            with quiet_copies():
                new = copy.deepcopy(program, {id(tensor): tensor for _, tensor in owned(program)})
            assert isinstance(new, GraphModule)
            return GraphEditor(ModuleHost(new))
        if program.dialect not in DIALECTS:
            raise FoldproofError(f"cannot fuse a program of dialect {program.dialect!r}: fuse it before it is lowered")
        return GraphEditor(ExportedHost(program))

    @staticmethod
    def in_place(module: GraphModule) -> GraphEditor:
        """Edit ``module`` itself."""
        return GraphEditor(ModuleHost(module))

    def order(self, node: Node) -> int:
        """Return the position of a node in the graph; constants are at the beginning."""
        return self._places.get(node, -1)

    def has(self, node: Node) -> bool:
        """Return True if the node has not been erased."""
        return not node._erased

    def draft(self, wanted: NewConstant) -> PlannedConstant:
        """Compute a new constant, or return the one made earlier for an equal expression.

        Raises:
            CannotFold: its computation fails, or it is not finite in its dtype.
        """
        expression = as_expression(self.constants.original(wanted.expression))
        known = self._drafts.get((expression, wanted.dtype))
        if known is not None:
            return known
        model = self.constants.tensors[wanted.like]
        with torch.no_grad():
            try:
                tensor = rounded(expression, self.constants.originals, wanted.dtype).to(model.device)
            except Exception as error:
                raise CannotFold(f"the folded {wanted.base} can't be computed: {brief(error)}") from error
            if not wanted.infinite and not is_finite(tensor):
                dtype = str(wanted.dtype).removeprefix("torch.")
                why = self._explain(expression)
                raise CannotFold(f"the folded {wanted.base} would not be finite in {dtype}: {why}")
        if isinstance(model, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=model.requires_grad and tensor.is_floating_point())
        return PlannedConstant(self._free_name(wanted.base), wanted.like, expression, tensor)

    def _explain(self, expression: Expression) -> str:
        """Return why the value of an expression is not finite."""
        for name in dict.fromkeys(expression.reads()):
            held = self.constants.originals[name]
            if held.is_floating_point() and not is_finite(held):
                return f"{name} holds {'nan' if bool(held.isnan().any()) else 'an infinite number'}"
        return "a variance + eps is 0 or negative, or a scale is too large"

    def draft_all(self, edits: Sequence[Edit]) -> PlannedEdits:
        """Plan the new constants of edits, by role; see `draft`."""
        return [(edit, {new.role: self.draft(new) for new in edit.wanted}) for edit in edits]

    def carry_out(
        self, drafted: PlannedEdits, redirected: Mapping[Node, Node], values: Mapping[Node, Any] | None = None
    ) -> None:
        """Apply edits, redirect the readers of nodes, and erase calls without readers.

        Args:
            drafted: the edits with their constants, from `draft_all`.
            redirected: nodes, each with its replacement.
            values: new fake values, for nodes whose strides change.
        """
        read_before = [operand for edit, _ in drafted for operand in edit.node.all_input_nodes]
        for edit, row in drafted:
            for view in edit.apply(edit.node, {role: self.add(draft) for role, draft in row.items()}):
                self.constants.note_computed(view)
        for node, value in (values or {}).items():
            node.meta["val"] = value
        for old, new in redirected.items():
            self.replace(old, new)
        for node in [edit.node for edit, _ in drafted] + read_before:
            self.erase_unread(node)

    def add(self, draft: PlannedConstant) -> Node:
        """Return the node of a planned constant, adding it to the program if necessary."""
        if draft.name in self._nodes:
            return self._nodes[draft.name]
        like = self._nodes[draft.like]
        node = self.host.insert(draft.name, draft.tensor, like)
        tensor = draft.tensor
        fake = like.meta.get("val")
        if isinstance(fake, FakeTensor):
            with fake.fake_mode:
                node.meta["val"] = torch.empty_strided(
                    tensor.shape,
                    tensor.stride(),
                    dtype=tensor.dtype,
                    device=tensor.device,
                    requires_grad=tensor.requires_grad,
                )
        self._nodes[draft.name] = node
        self._drafts[draft.expression, tensor.dtype] = draft
        self.constants.add(node, draft.name, tensor, draft.expression)
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Redirect all readers of ``old`` to ``new``, and erase ``old`` with the calls that only it needed."""
        old.replace_all_uses_with(new)
        self._erased[old.name] = new.name
        self.erase_unread(old)

    def erase_unread(self, node: Node) -> None:
        """Erase a call without readers, and then the calls that only it read."""
        pending = dict.fromkeys([node])
        while pending:
            node, _ = pending.popitem()
            if node._erased or node.op != "call_function" or not _may_erase(node):
                continue
            if all(is_getitem(user) and not user.users for user in node.users):
                pending |= dict.fromkeys(node.all_input_nodes)
                for part in list(node.users):
                    self.graph.erase_node(part)
                self.graph.erase_node(node)

    def derive(self, parameters: Mapping[str, Tensor]) -> Derived:
        """Return the constants that only the new program has, as computed from those of the original."""
        return Derived({n: e for n, e in self.constants.derived.items() if self._nodes[n].users}, parameters)

    def finish(self) -> Any:
        """Return the edited program."""
        return self.host.finish(self._erased)

    def _free_name(self, base: str) -> str:
        """Return ``<base>_folded``, numbered if a constant or a node has that name."""
        base = re.sub(r"_folded(_\d+)?$", "", base)  # strip the suffix of an earlier fold
        while True:
            number = self._numbers[base]
            self._numbers[base] += 1
            name = f"{base}_folded_{number}" if number else f"{base}_folded"
            if self.host.is_free(name):
                return name


def _may_erase(node: Node) -> bool:
    """Return True if the call has no effect; FX takes every dropout for a random one."""
    operator = operator_of(node)
    return not node.is_impure() or (operator is not None and is_functional(operator, arguments(node)))


def is_finite(tensor: Tensor) -> bool:
    """True if every element is finite."""
    # Ten times as fast as isfinite().all(), which makes copies; nan propagates through amin and amax.
    return tensor.numel() == 0 or all(math.isfinite(bound.item()) for bound in (tensor.amin(), tensor.amax()))
