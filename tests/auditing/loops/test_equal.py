"""Right lowerings and schedules are proved, whatever kind of loop or kernel they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.invoke_subgraph import mark_compile_region
from torch._higher_order_ops.while_loop import while_loop

from foldproof.auditing.loops import LABEL
from foldproof.verdict import Kind
from zoo.lowered import Function, loop_steps


class Counter(nn.Module):
    """A module that updates a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Any:
        self.seen.add_(x.mean(0))
        return x + self.seen


class Residual(nn.Module):
    """A convolution whose result is added to what an earlier one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.second(x.sin()) + self.first(x)


def _written(x: Tensor) -> Tensor:
    return x.clone().mul_(2)[1:].add_(1).sum(0)


def _embedded(x: Tensor) -> Tensor:
    """Add a table of angles, which is computed from no input, in float32."""
    places = torch.ones(4, 4, dtype=torch.bool).cumsum(1, dtype=torch.float32)
    angles = (places / (places[:, -1:] + 1e-6))[:, :, None] / 10000 ** (torch.arange(8).float() // 2 / 8)
    return x + torch.stack((angles[..., ::2].sin(), angles[..., 1::2].cos()), 3).flatten(1)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def whole(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 4


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "parts of a concatenation": (
        lambda x, y: torch.cat([x, y * 2], 1)[:, 1:5].transpose(0, 1) + 1,
        (drawn(3, 4), drawn(3, 4)),
    ),
    "padding by reflection": (lambda x: F.pad(x, (2, 1), mode="reflect") * x.mean(), (drawn(2, 3, 7),)),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (drawn(1, 2, 5, 5),)),
    "indices in a tensor": (lambda x, i: x.gather(1, i) + x[i[:, 0]], (drawn(4, 4), whole(4, 4))),
    "additions at indices": (lambda x, i: torch.zeros(4, 4).scatter_add(1, i, x), (drawn(4, 4), whole(4, 4))),
    "variance": (lambda x: x.var(1) + x.std(0), (drawn(6, 6),)),
    "a kernel with its own sum": (lambda x: x.cumsum(1), (drawn(6, 6),)),
    "several results": (lambda x: torch.sort(x, 1)[0] + 1, (drawn(6, 6),)),
    "the place of the largest": (lambda x: x.argmax(1), (drawn(6, 6),)),
    "a chain of maxima": (lambda x: F.max_pool2d(x.relu(), 2), (drawn(1, 2, 4, 4),)),
    "writes in place": (_written, (drawn(6, 6),)),
    "a sum in two stages": (lambda x: x.sum(), (drawn(100_000),)),
    "integers": (lambda x: x // 3 + x % 4, (whole(6, 6) - 2,)),
    "an expanded input": (lambda x: x.exp() + 1, (drawn(1, 4).expand(3, 4),)),
    "an input with gaps": (lambda x: x.exp() + 1, (drawn(6, 4)[::2],)),
    "half precision": (lambda x, y: torch.mm(x, y).exp(), (drawn(3, 4).bfloat16(), drawn(4, 5).bfloat16())),
    "attention": (lambda q: F.scaled_dot_product_attention(q, q + 1, q * 2), (drawn(1, 2, 5, 8),)),
    "a derivative of the digamma function": (lambda x: torch.polygamma(2, x.abs() + 1), (drawn(3, 4),)),
    "a power of two": (lambda x: torch.ldexp(x, x.round()) + 1, (drawn(3, 4),)),
    "products at indices": (lambda x, i: torch.scatter(x, 1, i, x + 1, reduce="multiply"), (drawn(4, 4), whole(4, 4))),
    "a function that is not defined everywhere": (lambda x: torch.special.bessel_y1(x) * 2, (drawn(3, 4),)),
    "classes as vectors": (lambda i: F.one_hot(i, 5) * 2, (whole(6),)),
    "a nan that is left out": (lambda x: torch.where(x > 0, x, float("nan")).nan_to_num() + 1, (drawn(3, 4),)),
    "a table that is computed": (_embedded, (drawn(4, 32),)),
    "no elements": (lambda x: x.exp().sum(0), (drawn(0, 4),)),
}


@mark_compile_region
def _repeated(x: Tensor) -> Tensor:
    return (x @ x).sin()


def _looped(x: Tensor) -> Any:
    return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x.sin() + i), (torch.tensor(0), x))


CONTROL_FLOW: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "a condition": (
        lambda x: torch.cond(x.sum() > 0, lambda x: x.sin() * 2, lambda x: x.cumsum(1), (x,)),
        {"true_graph_0", "false_graph_0"},
    ),
    "a loop": (_looped, {"while_loop_cond_graph_0", "while_loop_body_graph_0"}),
    "a part that is repeated": (lambda x: _repeated(_repeated(x) + 1), {"repeated_subgraph0"}),
}
"""Functions with parts that control flow runs, and the names of the parts."""

MODULES = {
    "convolution": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        drawn(2, 3, 8, 8),
    ),
    "norm": (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Softmax(-1)), drawn(5, 8)),
    "a convolution that adds in place": (Residual(), drawn(2, 4, 6, 6)),
    "a buffer": (Counter(), drawn(3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_loops_of_a_function_are_proved(name: str) -> None:
    function, inputs = FUNCTIONS[name]
    steps = loop_steps(Function(function), inputs)
    assert {step.name: step.verdict.kind for step in steps.values()} == dict.fromkeys(steps, Kind.PROVED)
    assert "lowering" in steps


@pytest.mark.parametrize("options", [{}, {"freezing": True}])
@pytest.mark.parametrize("name", MODULES)
def test_loops_of_a_module_are_proved(name: str, options: dict[str, Any]) -> None:
    model, x = MODULES[name]
    steps = loop_steps(model.eval(), [x], options)
    assert {step.name: step.verdict.kind for step in steps.values()} == dict.fromkeys(steps, Kind.PROVED)
    assert "lowering" in steps


@pytest.mark.parametrize("name", CONTROL_FLOW)
def test_loops_of_each_part_are_proved(name: str) -> None:
    function, parts = CONTROL_FLOW[name]
    steps = loop_steps(Function(function), [drawn(4, 4)])
    assert {name: step.verdict.kind for name, step in steps.items()} == dict.fromkeys(steps, Kind.PROVED)
    assert {"lowering", *(f"{part}/lowering" for part in parts)} <= {*steps}


class Scaled(nn.Module):
    """A module with parameters so small that Inductor writes their elements into its loops."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.factor = (
            nn.Parameter(torch.tensor([0.3, -1.7, 0.0, 2.5, 0.0])),
            nn.Parameter(torch.tensor(0.7)),
        )

    def forward(self, x: Tensor) -> Any:
        return (x * self.shift).sin() * self.factor + self.shift


def test_constants_that_are_written_as_numbers_keep_their_origin() -> None:
    step = loop_steps(Scaled().eval(), [drawn(3, 5)], {"freezing": True})["lowering"]
    assert step.verdict.kind is Kind.PROVED
    assert step.verdict.claim is not None and step.verdict.claim.all_parameters
    loops = [n.meta[LABEL].describe() for n in step.after.graph.nodes if LABEL in n.meta]
    assert "_frozen_param0[3]" in loops[0] and "2.5" not in loops[0]


def test_a_written_input_is_compared() -> None:
    steps = loop_steps(Function(lambda x: x.add_(1).sum()), [drawn(3, 4)])
    assert steps["lowering"].verdict.kind is Kind.PROVED
    assert any(n.target is torch.ops.aten.copy_.default for n in steps["lowering"].after.graph.nodes)


def read_before_write(x: Tensor) -> Tensor:
    """A copy of x as it was before the call."""
    old = x.repeat_interleave(1, 0)
    x.relu_()
    return old


def exchange(x: Tensor, y: Tensor) -> Tensor:
    """Two inputs, each written with what the other one was."""
    old = x.clone()
    x.copy_(y)
    y.copy_(old)
    return old + y


@pytest.mark.parametrize(("function", "inputs"), [(read_before_write, 1), (exchange, 2)])
def test_what_is_read_before_an_input_is_written_stays(function: Any, inputs: int) -> None:
    steps = loop_steps(Function(function), [drawn(4, 3) for _ in range(inputs)])
    assert {name: step.verdict.kind for name, step in steps.items()} == dict.fromkeys(steps, Kind.PROVED)


def test_reading_what_another_iteration_writes_is_no_proof() -> None:
    """Inductor drops the clone, so that the loop reads what it writes."""
    verdict = loop_steps(Function(lambda x: x[1:].copy_(x[:-1].clone())), [drawn(6, 4)])["lowering"].verdict
    assert verdict.kind is not Kind.PROVED


def test_calls_in_the_order_of_their_effects_are_read() -> None:
    """A solver checks its matrix by an operator with effects, which AOTAutograd calls through a token."""
    steps = loop_steps(Function(lambda x: torch.linalg.inv(x) + 1), [drawn(4, 4)])
    assert {step.name: step.verdict.kind for step in steps.values()} == dict.fromkeys(steps, Kind.PROVED)
    targets = {node.target for node in steps["lowering"].before.graph.nodes}
    assert torch.ops.aten._linalg_check_errors.default in targets


def test_memory_that_nobody_wrote_refutes_nothing() -> None:
    for function in (torch.empty_like, lambda x: x.new_empty_strided((3, 4), (1, 3))):
        verdict = loop_steps(Function(function), [drawn(3, 4)])["lowering"].verdict
        assert verdict.kind is Kind.UNDECIDED


def test_integers_are_tried_in_the_layout_that_was_given() -> None:
    x = whole(3, 3).t()
    steps = loop_steps(Function(lambda x: torch.as_strided_copy(x, (2, 2), (1, 2), 1)), [x])
    assert {step.name: step.verdict.kind for step in steps.values()} == dict.fromkeys(steps, Kind.PROVED)
