"""What is proved is what is called: hooks, forwards of instances, stale code, storages, gradients, threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import foldproof
from foldproof import Kind

from .programs import Module, normal

X = normal(6, 8)


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), nn.ReLU())).eval()


def clamp_output(module: fx.GraphModule) -> None:
    module.register_forward_hook(lambda m, i, o: o.clamp(max=50.0))


def clamp_input(module: fx.GraphModule) -> None:
    module.register_forward_pre_hook(lambda m, i: (i[0].clamp(-50, 50),))


def clamp_kwargs(module: fx.GraphModule) -> None:
    module.register_forward_pre_hook(lambda m, a, k: ((a[0] * 2,), k), with_kwargs=True)


def hook_a_child(module: fx.GraphModule) -> None:
    module.get_submodule("0").register_forward_hook(lambda m, i, o: o * 2)


def replace_forward(module: fx.GraphModule) -> None:
    forward = module.forward
    module.forward = lambda x: forward(x).clamp(max=50.0)  # type: ignore[method-assign]


def edit_without_recompile(module: fx.GraphModule) -> None:
    """The call is still relu; the graph says tanh. As the owner calls it, nothing has changed."""
    for node in module.graph.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), nn.ReLU):
            with module.graph.inserting_after(node):
                new = module.graph.call_function(torch.tanh, (node.args[0],))
            node.replace_all_uses_with(new)


@pytest.mark.parametrize("change", [clamp_output, clamp_input, clamp_kwargs, hook_a_child, replace_forward])
def test_what_hangs_on_a_graph_is_run(graph: fx.GraphModule, change: Callable[[fx.GraphModule], None]) -> None:
    changed = copy.deepcopy(graph)
    change(changed)
    verdict = foldproof.prove(graph, changed, (X,))
    assert verdict.kind is Kind.REFUTED, str(verdict)
    same = copy.deepcopy(graph)
    change(same)
    assert foldproof.prove(changed, same, (X,)).kind in (Kind.PROVED, Kind.UNDECIDED, Kind.ROUNDING)


def test_stale_code_is_what_runs(graph: fx.GraphModule) -> None:
    stale = copy.deepcopy(graph)
    edit_without_recompile(stale)
    assert foldproof.prove(graph, stale, (X,)).kind is Kind.PROVED
    stale.recompile()
    assert foldproof.prove(graph, stale, (X,)).kind is Kind.REFUTED


def test_numbers_read_from_storages() -> None:
    first, whole = float(X[0, 0]), X.clone()
    for before, after in (
        (lambda x: x + x.storage()[0], lambda x: x + first),
        (lambda x: torch.tensor([]).set_(x.untyped_storage()).reshape(6, 8) + 1, lambda x: whole + 1),
        (lambda x: x + torch.from_dlpack(x), lambda x: x + whole),
    ):
        verdict = foldproof.prove(before, after, (X,))
        assert not (verdict.kind is Kind.PROVED and verdict.claim.is_general), str(verdict)  # type: ignore[union-attr]


def test_code_that_asks_for_gradients() -> None:
    """It is called with gradients recorded, and gives other numbers then."""
    asks = Module(lambda s, x: s.linear(x) * (2 if torch.is_grad_enabled() else 1), linear=nn.Linear(8, 8))
    plain = Module(lambda s, x: s.linear(x), linear=asks.linear)
    needs = Module(lambda s, x: s.linear(x) * (2 if s.linear.weight.requires_grad else 1), linear=asks.linear)
    for program in (asks, needs):
        verdict = foldproof.prove(program, plain, (X,))
        assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), str(verdict)
    with torch.no_grad():
        assert foldproof.prove(asks, plain, (X,)).kind is Kind.PROVED


def test_the_module_can_be_served_meanwhile() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 8)).eval()
    with torch.no_grad():
        right = model(X)
    wrong: list[Any] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with torch.no_grad():
                if not torch.equal(model(X), right):
                    wrong.append(1)

    verdicts: list[Kind] = []

    def prove() -> None:
        verdicts.append(foldproof.prove(model, model, (X,)).kind)

    serving, provers = threading.Thread(target=serve), [threading.Thread(target=prove) for _ in range(3)]
    for thread in (serving, *provers):
        thread.start()
    for thread in provers:
        thread.join()
    stop.set()
    serving.join()
    assert not wrong and verdicts == [Kind.PROVED] * 3


def test_relu_of_another_name_is_still_relu() -> None:
    assert foldproof.prove(F.relu, lambda x: Tensor.relu(x), (X,)).kind is Kind.PROVED
