"""Programs with state: the next call reads what a call wrote to its leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import foldproof
from foldproof import Kind

from .programs import Module, normal

X = normal(3, 4)


def scaled_and_halved() -> fx.GraphModule:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("s", torch.rand(4) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x) * self.s
            self.s.mul_(0.5)
            return y

    return torch.export.export(Net().requires_grad_(False), (X,)).module()  # type: ignore[return-value]


def fold(graph: fx.GraphModule) -> None:
    """Right at the first call only: the second is scaled by half of ``s``."""
    (node,) = [n for n in graph.graph.nodes if n.target is torch.ops.aten.mul.Tensor and n.args[0].name == "linear"]
    scale = graph.s.detach()
    graph.linear.weight = nn.Parameter(graph.linear.weight * scale[:, None], False)
    graph.linear.bias = nn.Parameter(graph.linear.bias * scale, False)
    node.replace_all_uses_with(node.args[0])
    graph.graph.erase_node(node)
    graph.recompile()


def test_a_pass_that_folds_written_state() -> None:
    verdict = foldproof.prove_pass(fold, scaled_and_halved(), (X,))
    assert verdict.kind is Kind.REFUTED, str(verdict)
    assert verdict.counterexample is not None and "two calls" in verdict.counterexample.description


def counting(name: str, counts: bool) -> nn.Module:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = x + x * getattr(s, name)
        if counts:
            getattr(s, name).add_(1)
        return y

    return Module(forward, running_mean=torch.zeros(1), **{name: torch.tensor(0)})


@pytest.mark.parametrize("name", ["num_batches_tracked", "position"])
def test_a_counter_that_is_read(name: str) -> None:
    """A name does not show that a value is unread."""
    assert foldproof.prove(counting(name, True), counting(name, False), (X,)).kind is not Kind.PROVED
    assert foldproof.prove(counting(name, True), counting(name, True), (X,)).kind is Kind.PROVED


def remember(order: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return Module(order, cache=torch.zeros(3, 4))


def previous(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x + s.cache
    s.cache.copy_(x)
    return y


def previous_doubled(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x + 2 * s.cache
    s.cache.copy_(x)
    return y


def previous_by_another_way(s: Any, x: Tensor) -> Tensor:
    old = s.cache.clone()
    s.cache.zero_().add_(x)
    return old + x


def test_a_cache_that_is_empty_at_first() -> None:
    """Zeros hide differences; varied parameters, or a second call, show them."""
    assert foldproof.prove(remember(previous), remember(previous_doubled), (X,)).kind is not Kind.PROVED
    assert foldproof.prove(remember(previous), remember(previous_by_another_way), (X,)).kind is Kind.PROVED


def test_momentum_shows_in_the_second_call_only() -> None:
    cumulative, last = (nn.BatchNorm1d(4, momentum=m) for m in (None, 1.0))
    assert foldproof.prove(cumulative, last, (X,)).kind is Kind.REFUTED
    assert foldproof.prove(cumulative, nn.BatchNorm1d(4, momentum=None), (X,)).kind is Kind.PROVED


def test_writes_that_leave_no_version() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y: Tensor = x + s.b
        with torch.autograd._unsafe_preserve_version_counter(s.b):
            s.b.add_(1)
        return y

    silent, still = Module(forward, b=torch.ones(4)), Module(lambda s, x: x + s.b, b=torch.ones(4))
    assert foldproof.prove(silent, still, (X,)).kind is not Kind.PROVED


def test_a_closure_is_compared_and_left_alone() -> None:
    memory, norms = torch.zeros(4), [nn.BatchNorm1d(4).train()]

    def writes(x: Tensor) -> Tensor:
        memory.add_(1)
        return x * 2

    assert foldproof.prove(writes, lambda x: x + x, (X,)).kind is not Kind.PROVED
    assert foldproof.prove(lambda x: norms[0](x), lambda x: norms[0](x), (X,)).kind is Kind.PROVED
    assert memory.tolist() == [0.0] * 4 and norms[0].num_batches_tracked.item() == 0


def test_a_name_is_no_evidence_that_a_counter_is_not_read() -> None:
    times = Module(
        lambda s, x: x * s.num_batches_tracked, running_mean=torch.zeros(1), num_batches_tracked=torch.tensor(1)
    )
    read = foldproof.prove(times, lambda x: x, (X,))
    assert read.claim is None or not read.claim.is_general, str(read)
    unread = foldproof.prove(nn.BatchNorm1d(4).eval(), nn.BatchNorm1d(4).eval(), (X,))
    assert unread.claim is not None and not unread.claim.held, str(unread)


def test_a_buffer_that_the_first_call_fills() -> None:
    class Lazy(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.register_buffer("cache", None)
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            if self.cache is None:
                self.cache = x.clone()
                return x * 1
            return x * self.factor

    assert foldproof.prove(Lazy(2.0), Lazy(3.0), (X,)).kind is Kind.REFUTED
    assert foldproof.prove(Lazy(2.0), Lazy(2.0), (X,)).kind is Kind.PROVED


def test_a_second_call_that_takes_another_branch() -> None:
    """Its inputs lie beyond a threshold below which those of the first stay."""

    def averaged(threshold: float) -> nn.Module:
        def forward(s: Any, x: Tensor) -> Tensor:
            y = nn.functional.softplus(x, threshold=threshold)
            return y - s.m.lerp_(y.mean(0), 0.25)

        return Module(forward, m=torch.zeros(8))

    verdict = foldproof.prove(averaged(20.0), averaged(2.0), (torch.linspace(-1.9, 1.9, 64).reshape(8, 8),))
    assert verdict.kind is Kind.REFUTED and "takes another branch" in verdict.reason, str(verdict)
