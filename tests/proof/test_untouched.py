"""Proofs leave the caller's models, inputs, programs and Python state as they were."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof import Kind, prove, prove_pass

from .models import Module, parameter

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def fills_its_cache(s: Any, x: Tensor) -> Any:
    if s.cache is None:
        s.cache = (torch.arange(3.0)[:, None] * s.frequencies).cos()
    return x * s.cache


def test_a_cache_holds_no_shadow() -> None:
    model = Module(fills_its_cache, frequencies=torch.rand(4), cache=None)
    assert prove(model, copy.deepcopy(model), (X,)).kind is Kind.PROVED
    assert model.cache is None and type(model(X)) is Tensor


class Stateful(nn.Module):
    """Changes whatever a module may hold beside its parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.settings = 0, ["start"], {"scale": 1.0}
        self.loose = torch.zeros(4)
        self.inner = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append("call")
        self.settings["scale"] = 2.0
        self.loose.add_(1)
        self.inner.eval()
        return x * 2


@pytest.mark.parametrize("as_callable", [False, True])
def test_python_state(as_callable: bool) -> None:
    model = Stateful()
    loose = model.loose
    prove((lambda x: model(x)) if as_callable else model, lambda x: x + x, (X,))
    assert (model.calls, model.seen, model.settings) == (0, ["start"], {"scale": 1.0})
    assert model.loose is loose and torch.equal(loose, torch.zeros(4))
    assert model.inner.training


def writes_everything(s: Any, x: Tensor) -> Any:
    s.w.data = s.w.data.clamp(-1, 1)
    s.mean.add_(x.mean())
    s.last = x
    x.mul_(3)
    return x * s.w


def test_parameters_buffers_and_inputs() -> None:
    w, mean, last = parameter(1, 2, 3, 4), torch.zeros(()), torch.zeros(4)
    model = Module(writes_everything, w=w, mean=mean, last=last)
    kept, x = copy.deepcopy(model.state_dict()), X.clone()
    prove(model, copy.deepcopy(model), (x,))
    assert model.w is w and model.mean is mean and model.last is last
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    assert w.requires_grad and w.grad is None and torch.equal(x, X)


def test_derive_may_write_to_what_it_is_given() -> None:
    """In float64 a conversion would hand out the parameter itself."""
    w = nn.Parameter(torch.rand(4, dtype=torch.float64))
    model, kept = Module(lambda s, x: x * s.w, w=w), w.detach().clone()
    doubled = Module(lambda s, x: x * s.v / 2, v=nn.Parameter(kept * 2))
    verdict = prove(model, doubled, (X.double(),), derive=lambda p: {"v": p["w"].mul_(2)})
    assert verdict.kind is Kind.PROVED and torch.equal(kept, w), str(verdict)


def test_an_exported_program_that_a_pass_rewrites() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    program = torch.export.export(model, (X,)).run_decompositions()
    kept, graph = copy.deepcopy(program.state_dict), str(program.graph)

    def double(p: ExportedProgram) -> None:
        with torch.no_grad():
            p.state_dict["0.weight"].mul_(2)
        for node in list(p.graph.nodes):
            if node.op == "call_function" and node.target is torch.ops.aten.permute.default:
                with p.graph.inserting_after(node):
                    half = p.graph.call_function(torch.ops.aten.div.Tensor, (node, 2))
                node.replace_all_uses_with(half, delete_user_cb=lambda user: user is not half)
        p.graph_module.recompile()

    verdict = prove_pass(double, program, (X,))
    assert verdict.kind is Kind.PROVED, str(verdict)
    assert str(program.graph) == graph
    assert all(torch.equal(kept[name], tensor) for name, tensor in program.state_dict.items())


def test_compiled_parts_stay_compiled() -> None:
    """Dynamo gives up on a function for good when it meets a shadow in it."""
    plus_one = torch.compile(lambda x: x + 1, backend=lambda graph, _: lambda x: (x + 11,))
    assert prove(lambda x: plus_one(x), lambda x: x + 1, (X,)).kind is Kind.UNDECIDED
    assert torch.equal(plus_one(X), X + 11)


def test_random_numbers_continue_as_if_nothing_had_been() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    state = torch.get_rng_state()
    prove(model, lambda x: model(x) * 2, (X,))
    assert torch.equal(torch.get_rng_state(), state)
