"""Compiled code, optimizers and loggers stay as they were; the tests of loading see to sys.path."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.optim import optimizer

import foldproof
import foldproof.backend
from foldproof.log import hushed
from foldproof.torch_internals import compile_apart
from foldproof.verdict import Kind


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) + 1).relu()


X = torch.randn(3, 4)


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@torch.no_grad()
def test_compare_leaves_what_a_user_compiled() -> None:
    counter = CompileCounter()
    compiled = torch.compile(Net(), backend=counter)
    compiled(X)
    found = foldproof.compare(Net(), "aot_eager", (torch.randn(5, 4),))
    assert found.verdict.kind is Kind.ROUNDING
    compiled(X)
    assert counter.frame_count == 1


@torch.no_grad()
def test_an_audit_leaves_what_a_user_compiled_and_sees_every_pass_all_the_same() -> None:
    net = Net()
    compiled = torch.compile(net, dynamic=False)  # as an audit compiles
    compiled(X)
    found = foldproof.audit(net, (X,), compiler="inductor", locate=False)
    assert any(step.fired for step in found.steps)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(X)


def test_what_is_compiled_apart_is_compiled_each_time_and_leaves_nothing() -> None:
    cached = torch._dynamo.eval_frame._get_total_cache_entry_count
    net, compiled = Net(), []
    for _ in range(3):
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled.append(compile_apart(net, "eager"))
        assert torch.equal(compiled[-1](X), net(X))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    assert "forward" not in vars(net)
    assert cached(Net.forward) == 0


def test_what_is_compiled_apart_is_called_as_the_module_is() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor, *, scale: float = 2.0) -> Tensor:
            self.calls += 1
            return x * scale

    net = Counting()
    net.register_forward_hook(lambda module, args, out: out + 1)
    compiled = compile_apart(net, "eager")
    assert torch.equal(compiled(X), X * 2 + 1)
    assert torch.equal(compiled(X, scale=3.0), X * 3 + 1)
    assert net.calls == 2


@torch.no_grad()
def test_the_backend_hooks_no_optimizer() -> None:
    """Folded constants are computed at each call, so that nobody need tell it of a step."""
    hooks = optimizer._global_optimizer_post_hooks
    assert not hooks
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    compiled = torch.compile(net, backend=foldproof.backend.foldproof)
    compiled(torch.randn(1, 3, 8, 8))
    assert not hooks


class TestHushed:
    @pytest.fixture
    def shown(self) -> Iterator[list[str]]:
        """Messages that the user's handler, at the root, is given."""
        shown: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
        logging.root.addHandler(handler)
        yield shown
        logging.root.removeHandler(handler)

    def test_only_warnings_of_others_are_dropped(self, shown: list[str]) -> None:
        ours, theirs = logging.getLogger("model"), logging.getLogger("onnxscript.made_just_now")
        with hushed():
            ours.warning("a user's")
            theirs.warning("another's")
            theirs.error("an error")
        theirs.warning("afterwards")
        assert shown == ["a user's", "an error", "afterwards"]

    def test_other_threads_are_heard(self, shown: list[str]) -> None:
        def warn() -> None:
            logging.getLogger("onnxscript").warning("elsewhere")

        with hushed():
            thread = threading.Thread(target=warn)
            thread.start()
            thread.join()
        assert shown == ["elsewhere"]

    def test_levels_stay(self) -> None:
        logger = logging.getLogger("torch.export")
        before = logger.level, logger.manager.disable
        with hushed():
            assert (logger.level, logger.manager.disable) == before
