"""Programs with state: the next call reads what a call wrote to its leaves."""

from __future__ import annotations

import copy
from collections import deque
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


class Memory:
    """An object of the user's, with a tensor and a number."""

    def __init__(self) -> None:
        self.shift, self.calls = torch.zeros(4), 0


def with_attributes(forward: Callable[[Any, Tensor], Tensor], **held: Any) -> nn.Module:
    module = Module(forward)
    for name, x in held.items():
        module.__dict__[name] = x
    return module


def count(s: Any, x: Tensor) -> Tensor:
    s.calls += 1
    return x * s.calls


def append(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x * s.factors[-1]
    s.factors.append(2.0)
    return y


def append_deeper(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x * len(s.held["factors"])
    s.held["factors"].append(2.0)
    return y


def fill_a_cache(s: Any, x: Tensor) -> Tensor:
    """The key leaves out the values, of which the mean is made."""
    return x * 1 + s.cache.setdefault(x.dim(), x.mean()) - x.mean()


def shift_anew(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x + s.shift
    s.shift = s.shift + 1
    return y


def shift_in_place(s: Any, x: Tensor) -> Tensor:
    y: Tensor = x + s.shift
    s.shift.add_(1)
    return y


def shift_an_object(s: Any, x: Tensor) -> Tensor:
    return shift_in_place(s.memory, x)


def count_in_an_object(s: Any, x: Tensor) -> Tensor:
    return count(s.memory, x + x) if s.memory.calls else count(s.memory, x)


def flip_the_training_flag(s: Any, x: Tensor) -> Tensor:
    y = x * (1 if s.training else 2)
    s.eval()
    return y


CHANGING: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[], dict[str, Any]]]] = {
    "a counter": (count, lambda: {"calls": 0}),
    "a list": (append, lambda: {"factors": [1.0]}),
    "a deque": (append, lambda: {"factors": deque([1.0], maxlen=2)}),
    "a list in a dict": (append_deeper, lambda: {"held": {"factors": [1.0]}}),
    "a cache of too few keys": (fill_a_cache, lambda: {"cache": {}}),
    "a tensor that is replaced": (shift_anew, lambda: {"shift": torch.zeros(4)}),
    "a tensor that is written to": (shift_in_place, lambda: {"shift": torch.zeros(4)}),
    "a tensor of an object": (shift_an_object, lambda: {"memory": Memory()}),
    "a number of an object": (count_in_an_object, lambda: {"memory": Memory()}),
    "a flag": (flip_the_training_flag, dict),
}


@pytest.mark.parametrize("name", CHANGING)
def test_attributes_that_a_call_changes(name: str) -> None:
    """Its first call is the identity; the second one shows what the first left."""
    forward, make = CHANGING[name]
    held = make()
    module, same, still = with_attributes(forward, **held), with_attributes(forward, **make()), nn.Identity()
    before = copy.deepcopy(held)
    for pair in ((module, still), (still, module)):
        verdict = foldproof.prove(*pair, (X,))
        assert verdict.kind is Kind.REFUTED, str(verdict)
    verdict = foldproof.prove(module, same, (X,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None, str(verdict)
    assert "set by a call" in str(verdict.claim) and not verdict.claim.is_general
    assert str({k: vars(x) if isinstance(x, Memory) else x for k, x in held.items()}) == str(
        {k: vars(x) if isinstance(x, Memory) else x for k, x in before.items()}
    ), "the owner's objects are as they were"
    assert module.training


def test_attributes_that_contain_themselves() -> None:
    held: list[Any] = [1.0]
    held.append(held)

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held.append(1.0)
        return x * (len(s.held) - 2)

    module = with_attributes(forward, held=held)
    assert foldproof.prove(module, nn.Identity(), (X,)).kind is Kind.REFUTED and len(held) == 2


def test_an_attribute_that_is_only_kept_for_inspection() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.last = torch.softmax(x, -1)
        return s.last * 2  # type: ignore[no-any-return]

    kept = with_attributes(forward, last=None)
    assert foldproof.prove(kept, lambda x: 2 * torch.softmax(x, -1), (X,)).kind is Kind.PROVED


def test_state_that_no_module_holds() -> None:
    """A list in a closure grows with each run: no rounding explains what it does."""
    seen: list[int] = []

    def forward(x: Tensor) -> Tensor:
        seen.append(1)
        return x * len(seen)

    for pair in ((forward, lambda x: x * 1.0), (lambda x: x * 1.0, forward)):
        seen.clear()
        verdict = foldproof.prove(*pair, (X,))
        assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), str(verdict)
