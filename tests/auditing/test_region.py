"""The changed region: it contains everything that a pass changed, and only that is proved."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from foldproof import Kind
from foldproof.auditing.changed_region import cut_changed_region
from foldproof.auditing.copies import Copies
from foldproof.auditing.judge import judge
from foldproof.auditing.log import Change
from foldproof.auditing.snapshot import Snapshot, is_functional
from foldproof.operators import is_functional_module

aten = torch.ops.aten
INPUTS = (torch.randn(3, 4),)
SMALL = (torch.randn(3, 4, dtype=torch.float64) * 1e-300,)  # which can be doubled often


def chain(length: int, change: Any = None, at: int = 0) -> Snapshot:
    """x → relu(x·2) → …; ``change`` edits the graph's node number ``at``."""
    graph = fx.Graph()
    node = graph.placeholder("x")
    for _ in range(length):
        node = graph.call_function(aten.mul.Tensor, (node, 2.0))
        node = graph.call_function(aten.relu.default, (node,))
    graph.output((node,))
    if change is not None:
        change(graph, list(graph.nodes)[at])
    return Snapshot(fx.GraphModule({}, graph))


def as_sum(graph: fx.Graph, node: fx.Node) -> None:
    """x·2 → x + x"""
    with graph.inserting_before(node):
        new = graph.call_function(aten.add.Tensor, (node.args[0], node.args[0]))
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def as_square(graph: fx.Graph, node: fx.Node) -> None:
    """x·2 → x·x, which is wrong"""
    with graph.inserting_before(node):
        new = graph.call_function(aten.mul.Tensor, (node.args[0], node.args[0]))
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def test_the_region_is_small() -> None:
    region = cut_changed_region(chain(500), chain(500, as_sum, at=501), SMALL)
    assert region is not None
    assert sum(n.op == "call_function" for n in region.before.graph.nodes) == 2


def test_a_large_graph_is_proved_where_it_changed() -> None:
    """5,000 nodes, of which one was changed."""
    verdict = judge(Change("", "", chain(2500), chain(2500, as_sum, at=2501)), SMALL)
    assert verdict.kind is Kind.PROVED
    assert "proved on the changed region of 2 operators" in verdict.notes


def limited(limit: float, written: bool) -> Snapshot:
    """relu(x·2) by a limit that the graph computes from numbers, and then ``written`` as the operator."""
    graph = fx.Graph()
    x = graph.call_function(aten.mul.Tensor, (graph.placeholder("x"), 2.0))
    least = graph.call_function(aten.full.default, ([], limit))
    made = (
        graph.create_node("call_function", aten.relu.default, (x,), name="made")
        if written
        else graph.create_node("call_function", aten.maximum.default, (x, least), name="made")
    )
    graph.output((graph.call_function(aten.exp.default, (made,)), least))
    return Snapshot(fx.GraphModule({}, graph))


def test_numbers_that_the_graph_computes_are_in_the_region() -> None:
    region = cut_changed_region(limited(0.0, False), limited(0.0, True), INPUTS)
    assert region is not None
    names = [n.name for n in region.before.graph.nodes if n.op == "call_function"]
    assert names == ["full_default", "made"]
    verdict = judge(Change("", "", limited(0.0, False), limited(0.0, True)), INPUTS)
    assert verdict.kind is Kind.PROVED and "proved on the changed region of 2 operators" in verdict.notes
    assert judge(Change("", "", limited(0.5, False), limited(0.5, True)), INPUTS).kind is Kind.REFUTED


def modules(*layers: nn.Module) -> tuple[Snapshot, Snapshot]:
    """Layers called one after another, before and after the first of them was written as x + x."""
    traced = fx.symbolic_trace(nn.Sequential(Doubled(), *layers).eval())
    copies = Copies()
    before = Snapshot(traced, copies=copies)
    as_sum(traced.graph, next(n for n in traced.graph.nodes if n.target is operator.mul))
    return before, Snapshot(traced, copies=copies)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0


def test_modules_that_write_nothing_are_cut_off() -> None:
    layers = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.LeakyReLU()
    region = cut_changed_region(*modules(*layers), INPUTS)
    assert region is not None
    assert [n.name for n in region.before.graph.nodes if n.op.startswith("call")] == ["mul", "_1"]


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(inplace=True),
        nn.RReLU(),
        hooked(nn.Linear(4, 4)),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    ],
)
def test_modules_that_may_write_are_not(layer: nn.Module) -> None:
    assert cut_changed_region(*modules(layer), INPUTS) is None


def test_a_norm_in_training_without_statistics_updates_none() -> None:
    graph = fx.Graph()
    x, mean = graph.placeholder("x"), graph.placeholder("mean")
    calls = {
        graph.call_function(F.batch_norm, (x, None, None), {"training": True}): True,
        graph.call_function(F.batch_norm, (x, mean, mean), {"training": True}): False,
        graph.call_function(torch.batch_norm, (x, None, None, mean, mean, True, 0.1, 1e-5, False)): False,
        graph.call_function(aten.batch_norm.default, (x, None, None, None, None, True, 0.1, 1e-5, False)): True,
        graph.call_function(aten.batch_norm.default, (x, None, None, mean, mean, True, 0.1, 1e-5, False)): False,
        graph.call_function(aten.instance_norm.default, (x, None, None, None, None, True, 0.1, 1e-5, False)): True,
    }
    assert [is_functional(call) for call in calls] == [*calls.values()]


def test_statistics_that_are_written_in_eval() -> None:
    layer = nn.InstanceNorm1d(4, track_running_stats=True).eval()
    layer.track_running_stats = False
    assert not is_functional_module(layer)


def test_norms_and_dropouts_in_training_are_not_quiet() -> None:
    for layer in (nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True), nn.Dropout(), nn.AlphaDropout()):
        assert not is_functional_module(layer.train())
        assert is_functional_module(layer.eval())


def test_right_and_wrong_changes() -> None:
    for length in (1, 5):
        right = judge(Change("", "", chain(length), chain(length, as_sum, at=1)), INPUTS)
        wrong = judge(Change("", "", chain(length), chain(length, as_square, at=1)), INPUTS)
        assert (right.kind, wrong.kind) == (Kind.PROVED, Kind.REFUTED)


def test_a_reordered_graph_is_the_same() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    a, b = graph.call_function(aten.relu.default, (x,)), graph.call_function(aten.tanh.default, (x,))
    graph.output((graph.call_function(aten.add.Tensor, (a, b)),))
    before = Snapshot(fx.GraphModule({}, graph))
    b.append(a)
    after = Snapshot(fx.GraphModule({}, graph))
    verdict = judge(Change("sort", "", before, after), INPUTS)
    assert verdict.kind is Kind.PROVED
    assert "only order" in verdict.reason


def test_reordered_writes_are_not() -> None:
    """x.add_(1) before and after x is read: the same operators on the same operands, and another function."""

    def program(write_first: bool) -> Snapshot:
        graph = fx.Graph()
        x = graph.placeholder("x")
        clone = graph.call_function(aten.clone.default, (x,))
        if write_first:
            graph.call_function(aten.add_.Tensor, (clone, 1.0))
        out = graph.call_function(aten.tanh.default, (clone,))
        if not write_first:
            graph.call_function(aten.add_.Tensor, (clone, 1.0))
        graph.output((out,))
        return Snapshot(fx.GraphModule({}, graph))

    verdict = judge(Change("sort", "", program(True), program(False)), INPUTS)
    assert verdict.kind is Kind.REFUTED


def edited(build: Callable[[fx.Graph, bool], None]) -> tuple[Snapshot, Snapshot]:
    copies, made = Copies(), []
    for wrong in (False, True):
        graph = fx.Graph()
        build(graph, wrong)
        made.append(Snapshot(fx.GraphModule({}, graph), copies=copies))
    return made[0], made[1]


def frozen_index(graph: fx.Graph, wrong: bool) -> None:
    """sin(x)[argmax(x)], where the index becomes what it is at these inputs"""
    x = graph.placeholder("x")
    index = graph.call_function(aten.argmax.default, (x,))
    y = graph.call_function(aten.sin.default, (x,))
    one = (y, 0, 2, 1) if wrong else (y, 0, index)
    out = graph.call_function(aten.narrow.default if wrong else aten.index_select.default, one)
    graph.output((out, index))


def frozen_choice(graph: fx.Graph, wrong: bool) -> None:
    """sum(x) > 0 ? sin(x) : cos(x), which becomes the branch of these inputs"""
    x = graph.placeholder("x")
    choice = graph.call_function(aten.gt.Scalar, (graph.call_function(aten.sum.default, (x,)), 0))
    a, b = graph.call_function(aten.sin.default, (x,)), graph.call_function(aten.cos.default, (x,))
    graph.output((a if wrong else graph.call_function(aten.where.self, (choice, a, b)), b, choice))


def moved_memory(graph: fx.Graph, wrong: bool) -> None:
    """The first two numbers where x[::2] lies, of which a copy lies elsewhere"""
    some = graph.call_function(aten.slice.Tensor, (graph.placeholder("x"), 0, 0, 4, 2))
    read = graph.call_function(aten.clone.default, (some,)) if wrong else some
    out = graph.call_function(aten.as_strided.default, (read, [2], [1], 0))
    graph.output((out, graph.call_function(aten.relu.default, (some,))))


@pytest.mark.parametrize("build", [frozen_index, frozen_choice, moved_memory])
def test_what_no_proof_on_the_region_speaks_of(build: Callable[[fx.Graph, bool], None]) -> None:
    """A region's inputs stand for all floating-point values, so it includes their decisions and layouts."""
    before, after = edited(build)
    assert judge(Change("", "", before, after), (torch.tensor([0.1, 0.3, 2.0, 0.2]),)).kind is Kind.REFUTED
