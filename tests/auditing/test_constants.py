"""Constants that a pass folds: their origins, and the claims for other parameters."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassResult
from torch.fx.passes.infra.pass_manager import PassManager

import foldproof
from foldproof import Kind, Verdict
from foldproof.auditing import judge

Edit = Callable[[fx.GraphModule], None]


def tapped(edit: Edit, module: fx.GraphModule, x: Tensor) -> Verdict:
    def changed(module: fx.GraphModule) -> PassResult:
        edit(module)
        module.graph.eliminate_dead_code()
        module.recompile()
        return PassResult(module, True)

    manager = PassManager(passes=[changed])
    log = foldproof.tap(manager, (x,))
    manager(module)
    (step,) = log.steps
    return step.verdict


def called(module: fx.GraphModule, target: object) -> fx.Node:
    return next(n for n in module.graph.nodes if n.target is target)


def constant(module: fx.GraphModule, node: fx.Node, value: Tensor, name: str = "folded") -> None:
    module.register_buffer(name, value.detach().clone())
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.get_attr(name))


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.weight * self.scale, x * torch.sum(self.weight, dim=0)


@pytest.mark.parametrize(("factor", "kinds"), [(1.0000001, {Kind.PROVED, Kind.ROUNDING}), (3.0, {Kind.REFUTED})])
def test_a_weight_that_is_replaced_under_its_name(factor: float, kinds: set[Kind]) -> None:
    def edit(module: fx.GraphModule) -> None:
        constant(module, called(module, torch.sum), module.weight.sum(dim=0))  # type: ignore[operator, union-attr]
        called(module, operator.mul).replace_all_uses_with(called(module, operator.matmul))
        weight, scale = module.weight.detach().double(), module.scale.detach().double()  # type: ignore[operator, union-attr]
        module.weight = nn.Parameter((weight * scale * factor).float())

    torch.manual_seed(0)
    found = tapped(edit, fx.symbolic_trace(Weighted()), torch.randn(4, 4))
    assert found.kind in kinds, str(found)


@pytest.mark.parametrize(("late", "kind"), [(True, Kind.PROVED), (False, Kind.REFUTED)])
def test_a_constant_of_what_is_written_to(late: bool, kind: Kind) -> None:
    root, graph = nn.Module(), fx.Graph()
    root.register_buffer("seen", torch.randn(4))
    x, seen = graph.placeholder("x"), graph.get_attr("seen")
    graph.call_method("add_", (graph.call_method("view", (seen, 2, 2)), 0.0 if late else 1.0))
    graph.output(graph.call_function(torch.add, (x, graph.call_function(torch.mul, (seen, 2.0)))))

    def edit(module: fx.GraphModule) -> None:
        constant(module, called(module, torch.mul), module.seen * 2.0)  # type: ignore[operator]

    found = tapped(edit, fx.GraphModule(root, graph), torch.randn(4))
    assert found.kind in ({kind} if kind is Kind.REFUTED else {Kind.PROVED, Kind.ROUNDING}), str(found)


class Norms(nn.Module):
    """Two scales that are alike before they are trained."""

    def __init__(self) -> None:
        super().__init__()
        for i in (1, 2):
            setattr(self, f"weight{i}", nn.Parameter(torch.full((4,), 0.1)))
            setattr(self, f"variance{i}", nn.Parameter(torch.ones(4)))

    def forward(self, x: Tensor) -> Tensor:
        first, second = (
            getattr(self, f"weight{i}") * torch.rsqrt(getattr(self, f"variance{i}") + 1e-5) for i in (1, 2)
        )
        return torch.tanh(x * first) * second


def folded_norm(source: int) -> Edit:
    def edit(module: fx.GraphModule) -> None:
        weight, variance = getattr(module, f"weight{source}"), getattr(module, f"variance{source}")
        first = next(n for n in module.graph.nodes if n.target is operator.mul and n.args[0].op == "get_attr")
        constant(module, first, weight * torch.rsqrt(variance + 1e-5))

    return edit


def test_a_constant_that_is_right_by_chance() -> None:
    x = torch.randn(3, 4)
    assert tapped(folded_norm(2), fx.symbolic_trace(Norms()), x).kind is Kind.REFUTED
    right = tapped(folded_norm(1), fx.symbolic_trace(Norms()), x)
    assert right.kind is Kind.PROVED and str(right.claim) == "all inputs and all parameters", str(right)


def test_one_number_may_be_another() -> None:
    """Weight and variance are swapped, and both are 2; the pass can't be run again."""
    calls: list[int] = []

    def edit(module: fx.GraphModule) -> None:
        calls.append(0)
        if len(calls) > 1:
            raise RuntimeError("once only")
        constant(module, called(module, operator.mul), module.variance * torch.rsqrt(module.weight + 1e-5))  # type: ignore[operator]

    root, graph = nn.Module(), fx.Graph()
    root.weight, root.variance = nn.Parameter(torch.full((1,), 2.0)), nn.Parameter(torch.full((1,), 2.0))
    x, weight, variance = graph.placeholder("x"), graph.get_attr("weight"), graph.get_attr("variance")
    root_of = graph.call_function(torch.rsqrt, (graph.call_function(operator.add, (variance, 1e-5)),))
    graph.output(graph.call_function(torch.mul, (x, graph.call_function(operator.mul, (weight, root_of)))))
    found = tapped(edit, fx.GraphModule(root, graph), torch.randn(3, 4))
    assert found.kind is not Kind.PROVED or str(found.claim) == "all inputs, for these parameter values", str(found)


def test_a_constant_that_may_be_right_by_chance() -> None:
    """The pass can't be run again: it counts its calls."""
    calls: list[int] = []

    def edit(module: fx.GraphModule) -> None:
        calls.append(len(calls))
        if len(calls) > 1:
            raise RuntimeError("once only")
        folded_norm(1)(module)

    module = fx.symbolic_trace(Norms())
    found = tapped(edit, copy.deepcopy(module), torch.randn(3, 4))
    assert found.kind is Kind.PROVED and str(found.claim) == "all inputs, for these parameter values", str(found)
    calls.clear()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 2)
    found = tapped(edit, module, torch.randn(3, 4))
    assert found.kind is Kind.PROVED and str(found.claim) == "all inputs and all parameters", str(found)


class Turning(nn.Module):
    """A table of cosines, as of rotary embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(1 / 100 ** (torch.arange(8) / 8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.cos(self.frequencies * 3.0)


@pytest.mark.parametrize(
    ("roundings", "kinds"), [(0, {Kind.PROVED}), (1, {Kind.PROVED_WITHIN}), (9, {Kind.ROUNDING}), (9e5, {Kind.REFUTED})]
)
def test_a_table_that_another_library_computed(roundings: float, kinds: set[Kind]) -> None:
    def edit(module: fx.GraphModule) -> None:
        table = torch.cos(module.frequencies * 3.0)  # type: ignore[operator]
        constant(module, called(module, torch.cos), table + roundings * 2.0**-24)

    found = tapped(edit, fx.symbolic_trace(Turning()), torch.randn(4, 8))
    assert found.kind in kinds, str(found)
    assert len(found.steps) == (found.kind is Kind.PROVED_WITHIN)


class Divided(nn.Module):
    """Divides by a product, some elements of which are as small as the roundings of others."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.tensor([1e-4, 1.0])), nn.Parameter(torch.tensor([1e-4, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x / (self.one * self.other)


def test_roundings_of_a_constant_that_are_many_of_a_quotient(monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(module: fx.GraphModule) -> None:
        product = module.one * module.other  # type: ignore[operator]
        constant(module, called(module, operator.mul), product + 2e-7)

    monkeypatch.setattr(judge, "_find_rerun", lambda change: None)  # as of a file that another library wrote
    found = tapped(edit, fx.symbolic_trace(Divided()), torch.randn(4, 2))
    assert found.kind is Kind.REFUTED, str(found)
