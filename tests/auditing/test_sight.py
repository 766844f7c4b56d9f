"""An unchanged graph keeps its snapshot; every change is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from foldproof.auditing.signature import Signature
from foldproof.auditing.snapshot import Snapshot


def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))


def first(module: fx.GraphModule) -> fx.Node:
    return next(n for n in module.graph.nodes if n.op == "call_module")


def weight(module: fx.GraphModule) -> Tensor:
    return module.get_parameter("0.weight")


def another_argument(module: fx.GraphModule) -> None:
    node = [n for n in module.graph.nodes if n.op == "call_module"][1]
    node.args = (next(iter(module.graph.nodes)),)


def another_node(module: fx.GraphModule) -> None:
    with module.graph.inserting_after(first(module)):
        module.graph.call_function(torch.exp, (first(module),))


def another_target(module: fx.GraphModule) -> None:
    first(module).target = "1"


def another_module(module: fx.GraphModule) -> None:
    setattr(module, "0", nn.Linear(3, 4))


def another_mark(module: fx.GraphModule) -> None:
    first(module).meta["mark"] = 1


@pytest.mark.parametrize("edit", [another_argument, another_node, another_target, another_module, another_mark])
def test_an_edit_is_seen(edit: Callable[[fx.GraphModule], None]) -> None:
    module = traced()
    seen = Snapshot(module)
    assert seen.still_shows(module, Signature(), closely=False) and seen.still_shows(module, Signature(), closely=True)
    edit(module)
    assert not seen.still_shows(module, Signature(), closely=False)


def bound() -> tuple[fx.GraphModule, Signature, Tensor]:
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    graph.output(graph.call_function(torch.mul, (x, w)))
    held = torch.ones(5)
    return fx.GraphModule(nn.Module(), graph), Signature({"w": ("weight", held)}), held


def test_a_write_that_pytorch_counts_is_seen_at_a_glance() -> None:
    module, signature, held = bound()
    seen = Snapshot(module, signature)
    held.add_(1)
    assert not seen.still_shows(module, signature, closely=False)


def test_other_writes_take_a_close_look() -> None:
    module, signature, held = bound()
    seen = Snapshot(module, signature)
    held.data.add_(1)
    assert seen.still_shows(module, signature, closely=False)
    assert not seen.still_shows(module, signature, closely=True)
