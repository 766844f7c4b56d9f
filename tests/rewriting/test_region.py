"""The region of a rewrite, before and after, of which the proof is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from foldproof import Kind
from foldproof.graph.nodes import set_argument
from foldproof.proof import prove_region
from foldproof.rewriting.edit import Edit, NewConstant
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.expression import Expression
from foldproof.rewriting.rewrite import RewrittenRegion, cut_rewrite


class Table(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table, self.scale = nn.Parameter(torch.randn(rows, 3)), nn.Parameter(torch.randn(3))

    def forward(self, i: Tensor) -> Tensor:
        return nn.functional.embedding(i, self.table) * self.scale


def scaled(table: Tensor, scale: Tensor) -> Tensor:
    return table * scale


def scaled_but_for_later_rows(table: Tensor, scale: Tensor) -> Tensor:
    return torch.cat([table[:1] * scale, table[1:]])


def rewrite(rows: int, function: Any) -> tuple[GraphEditor, Any, dict[Node, Node], RewrittenRegion]:
    program = torch.export.export(Table(rows), (torch.tensor([0, 0]),)).module()
    editor = GraphEditor.on_copy(program)
    (entry,) = (node for node in editor.graph.nodes if "embedding" in str(node.target))
    (product,) = entry.users
    table = NewConstant("weight", "table", "table", torch.float32, Expression(function, ("table", "scale")))

    def install(node: Node, new: Mapping[str, Node]) -> None:
        set_argument(node, "weight", new["weight"])

    drafted = editor.draft_all([Edit("", entry, (table,), install)])
    return editor, drafted, {product: entry}, cut_rewrite(editor, [entry, product], drafted, {product: entry})


@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_proved_is_what_is_done(rows: int) -> None:
    editor, drafted, redirected, region = rewrite(rows, scaled)
    verdict = prove_region(region.before, region.after, region.inputs(), region.derive)
    assert verdict.kind is Kind.PROVED, str(verdict)
    editor.carry_out(drafted, redirected)
    made = editor.finish()
    assert isinstance(made, GraphModule)
    assert [node.name for node in made.graph.nodes if node.op == "get_attr"] == ["table_folded"]
    i = torch.tensor([0, rows - 1])
    assert torch.equal(made(i), region.before(i)[0]) and torch.equal(made(i), region.after(i)[0])


def test_indices_take_more_than_one_value() -> None:
    """Held at 0 alone, they would show one row of the table."""
    *_, region = rewrite(4, scaled_but_for_later_rows)
    verdict = prove_region(region.before, region.after, region.inputs(), region.derive)
    assert verdict.kind is Kind.REFUTED
