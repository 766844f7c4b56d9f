"""``torch.compile(model, backend="foldproof")``: some tests with the real Inductor, most without its code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager_decomp_partition
from torch._ops import OpOverload

from foldproof import backend
from foldproof.fusion.batching import rule
from foldproof.fusion.examples import Functional, made
from foldproof.fusion.result import Speed

linear, norm = partial(nn.Linear, 8, 8), partial(nn.BatchNorm1d, 8)


@pytest.fixture
def inductor() -> None:
    """Have a test compile with Inductor itself."""


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """No code compiled before, and batching pays on any machine.

    A graph goes through AOTAutograd, as with Inductor, but no code is generated, since compiling it takes a second.
    """
    monkeypatch.setattr(rule, "require_faster", lambda *_, bitwise: Speed(2, 1, "no machine"))
    if "inductor" not in request.fixturenames:
        monkeypatch.setattr(backend, "compile_with_inductor", lambda graph, x, _: aot_eager_decomp_partition(graph, x))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[backend.Rewritten | None]:
    """Results of the backend for each graph that it tried to rewrite."""
    found: list[backend.Rewritten | None] = []
    original = backend.rewrite_graph

    def watched(*arguments: Any) -> backend.Rewritten | None:
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(backend, "rewrite_graph", watched)
    return found


def operators(rewritten: backend.Rewritten | None) -> list[str]:
    assert rewritten is not None
    calls = [node.target for node in rewritten.module.graph.nodes if node.op == "call_function"]
    return [str(target).split(".")[1] for target in calls if isinstance(target, OpOverload)]


def attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.q(x), m.k(x), m.v(x)
    found = nn.functional.scaled_dot_product_attention(q, k, v)
    return m.n(found.flatten(0, 1)).relu() if hasattr(m, "n") else found


def block() -> tuple[nn.Module, Tensor]:
    """A projection that a normalisation follows, and three that read one tensor. A function of its own for each."""

    def function(m: Any, x: Tensor) -> Tensor:
        return attention(m, m.o(m.p(x).transpose(1, 2)).transpose(1, 2).relu())

    model, (x,) = made(Functional(function, p=linear(), o=norm(), q=linear(), k=linear(), v=linear()), (2, 5, 8))
    return model, x


def compiled(model: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, backend=backend.foldproof, **options)


def assert_agree(fast: Callable[..., Any], model: nn.Module, *inputs: Tensor) -> None:
    torch.testing.assert_close(fast(*inputs), model(*inputs))


@pytest.mark.usefixtures("inductor")
def test_is_found_by_name() -> None:
    model, x = block()
    [entry] = entry_points(group="torch_dynamo_backends", name="foldproof")
    assert entry.load() is backend.foldproof
    with torch.no_grad():
        assert_agree(torch.compile(model, backend="foldproof"), model, x)


class TestRewrites:
    @torch.no_grad()
    def test_folds_and_batches(self, seen: list[Any]) -> None:
        model, x = block()
        assert_agree(compiled(model), model, x)
        [one] = seen
        assert operators(one).count("linear") == 2 and "batch_norm" not in operators(one)
        assert one.made == 4 and not one.right_for

    @torch.no_grad()
    def test_nothing_to_rewrite(self, seen: list[Any]) -> None:
        model, (x,) = made(Functional(lambda m, x: m.a(x).relu(), a=linear()), (2, 8))
        assert_agree(compiled(model), model, x)
        assert seen == [None]

    @torch.no_grad()
    @pytest.mark.parametrize("rows", [2, 8192])
    def test_constants_that_take_long_to_compute(self, rows: int, seen: list[Any]) -> None:
        """A weight of 16,384 elements, for two rows and for many."""
        model, (x,) = made(
            Functional(lambda m, x: m.n(m.a(x)).relu(), a=nn.Linear(128, 128), n=nn.BatchNorm1d(128)), (rows, 128)
        )
        torch.testing.assert_close(compiled(model)(x), model(x), rtol=1e-3, atol=1e-3)
        assert [one is not None for one in seen] == [rows > 2]

    def test_no_tensor_is_given(self, recwarn: pytest.WarningsRecorder) -> None:
        def function(n: int) -> Tensor:
            return torch.ones(n).sin()

        fast = torch.compile(function, backend=backend.foldproof)
        assert all(torch.allclose(fast(n), function(n)) for n in (3, 4))
        assert not [w for w in recwarn if "foldproof" in str(w.message)]

    @torch.no_grad()
    @pytest.mark.parametrize("dynamic", [None, True])
    def test_dynamic_shapes(self, dynamic: bool | None, seen: list[Any]) -> None:
        model, _ = block()
        fast = compiled(model, dynamic=dynamic)
        for batch, length in ((2, 5), (3, 7), (4, 9), (6, 11)):
            assert_agree(fast, model, torch.randn(batch, length, 8))
        assert len(seen) <= 2  # the first shapes, and then any
        assert all(operators(one).count("linear") == 2 for one in seen)

    @torch.no_grad()
    @pytest.mark.usefixtures("inductor")
    def test_options_are_inductors(self) -> None:
        model, x = block()
        assert_agree(compiled(model, options={"max_autotune": False}), model, x)
        assert_agree(compiled(model, mode="reduce-overhead"), model, x)
        with pytest.raises(Exception, match="no_such_option"):
            compiled(model, options={"no_such_option": 1})(x)

    @torch.no_grad()
    def test_a_graph_break(self, seen: list[Any]) -> None:
        def function(m: Any, x: Tensor) -> Tensor:
            y = attention(m, x)
            torch._dynamo.graph_break()
            return m.o(m.p(y.flatten(0, 1))).relu()

        model, (x,) = made(Functional(function, p=linear(), o=norm(), q=linear(), k=linear(), v=linear()), (2, 5, 8))
        assert_agree(compiled(model), model, x)
        assert [operators(one).count("linear") for one in seen] == [1, 1]

    @torch.no_grad()
    @pytest.mark.usefixtures("inductor")
    def test_a_buffer_that_is_written_to(self) -> None:
        def function(m: Any, x: Tensor) -> Tensor:
            m.n.running_mean.add_(1)
            return attention(m, x) + m.n.running_mean

        model, (x,) = made(Functional(function, n=norm(), q=linear(), k=linear(), v=linear()), (2, 5, 8))
        other, _ = made(Functional(function, n=norm(), q=linear(), k=linear(), v=linear()), (2, 5, 8))
        other.load_state_dict(model.state_dict())
        fast = compiled(model)
        for _ in range(3):
            assert_agree(fast, other, x)

    @torch.no_grad()
    def test_an_input_that_shows_what_is_written_to_another(self, seen: list[Any]) -> None:
        def function(m: Any, x: Tensor, y: Tensor) -> Tensor:
            q = m.q(x).relu()
            y.add_(1)
            return q * m.k(x).relu()

        model, (x,) = made(Functional(function, q=linear(), k=linear()), (4, 8))
        fast, other = compiled(model), x.clone()
        assert_agree(lambda x: fast(x[:3], x[:3]), lambda x: model(other[:3], other[:3]), x)
        assert seen == [None]


class TestParametersThatChange:
    @torch.no_grad()
    @pytest.mark.usefixtures("inductor")
    def test_in_place(self, seen: list[Any]) -> None:
        model, x = block()
        fast = compiled(model)
        before = fast(x)
        model.q.weight.mul_(3)
        model.o.running_var.add_(1)
        assert not torch.allclose(fast(x), before)
        assert_agree(fast, model, x)
        assert len(seen) == 1

    def test_by_a_fused_optimizer(self, seen: list[Any]) -> None:
        """Its kernels leave the versions of parameters as they are."""
        model, x = block()
        fast, optimizer = compiled(model), torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            with torch.no_grad():
                assert_agree(fast, model, x)
            model(x).square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            assert_agree(fast, model, x)
        assert len(seen) == 1

    @torch.no_grad()
    def test_all_loaded(self) -> None:
        model, x = block()
        fast = compiled(model)
        fast(x)
        model.load_state_dict({name: torch.rand_like(t) if t.dim() else t for name, t in model.state_dict().items()})
        assert_agree(fast, model, x)

    @torch.no_grad()
    def test_replaced(self) -> None:
        model, x = block()
        fast = compiled(model)
        fast(x)
        model.k.weight = nn.Parameter(torch.randn(8, 8))
        assert_agree(fast, model, x)

    @torch.no_grad()
    def test_two_of_one_class(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.q, self.k, self.v = linear(), linear(), linear()

            def forward(self, x: Tensor) -> Tensor:
                return attention(self, x)

        models = [made(Model(), (2, 5, 8)) for _ in range(2)]
        fast = [compiled(model) for model, _ in models]
        for _ in range(2):
            for one, (model, (x,)) in zip(fast, models, strict=True):
                assert_agree(one, model, x)

    def test_in_two_threads(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.q, self.k = nn.Linear(64, 64), nn.Linear(64, 64)

            def forward(self, x: Tensor) -> Tensor:
                return self.q(x).relu() * self.k(x)

        models, x = [Model().eval() for _ in range(2)], torch.randn(256, 64)
        fast = [compiled(model) for model in models]

        @torch.no_grad()
        def differs(i: int) -> bool:
            expected = models[i](x)
            return any(not torch.allclose(fast[i](x), expected, atol=1e-3) for _ in range(200))

        assert not any(map(differs, range(2)))
        with ThreadPoolExecutor() as pool:
            assert not any(pool.map(differs, range(2)))

    @torch.no_grad()
    def test_of_a_fold_that_hangs_on_signs(self, seen: list[Any]) -> None:
        """A scale was moved past a maximum: when it turns negative, the model runs as it was."""
        model, (x,) = made(
            Functional(lambda m, x: m.n(nn.functional.max_pool1d(m.c(x), 2)), c=nn.Conv1d(8, 8, 3), n=norm()), (2, 8, 9)
        )
        model.n.weight.abs_()
        fast = compiled(model)
        assert_agree(fast, model, x)
        assert seen[0].right_for
        model.n.weight.neg_()
        with pytest.warns(UserWarning, match="right for its old value only"):
            assert_agree(fast, model, x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            assert_agree(fast, model, x)


class TestHandedOver:
    @pytest.mark.usefixtures("inductor")
    def test_training(self, seen: list[Any]) -> None:
        model, x = block()
        model.train()
        torch.manual_seed(0)
        compiled(model)(x).square().sum().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        model(x).square().sum().backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert seen == [] and found.keys() == expected.keys() != set()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)

    def test_gradients_in_eval_mode_then_none(self, seen: list[Any]) -> None:
        model, x = block()
        fast = compiled(model)
        fast(x).sum().backward()
        assert seen == []
        with torch.no_grad():
            assert_agree(fast, model, x)
        assert len(seen) == 1

    def test_frozen_parameters_need_no_gradients(self, seen: list[Any]) -> None:
        model, x = block()
        assert_agree(compiled(model.requires_grad_(False)), model, x)
        assert len(seen) == 1

    @torch.no_grad()
    def test_what_fails_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError("out of order")

        monkeypatch.setattr(backend, "_trace_aten", fails)
        model, x = block()
        fast = compiled(model)
        with pytest.warns(UserWarning, match="leaves a graph to Inductor as it is: .*out of order"):
            assert_agree(fast, model, x)

    @torch.no_grad()
    def test_control_flow(self) -> None:
        def function(m: Any, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda y: attention(m, y), lambda y: y.sin(), (x,))

        model, (x,) = made(Functional(function, q=linear(), k=linear(), v=linear()), (2, 5, 8))
        fast = compiled(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert_agree(fast, model, x.abs())
            assert_agree(fast, model, -x.abs())
