"""In-place operators that become functional ones for a while: which, and that nobody sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fusion_programs import run as run_program
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.fusion.examples import functional
from foldproof.rewriting.editor import GraphEditor

Function = Callable[..., Any]


def split_written(m: nn.Module, x: Tensor) -> Tensor:
    a, b = x.exp().chunk(2, 1)
    a.add_(b)
    return torch.cat([a, b], 1)


def base_read_later(m: nn.Module, x: Tensor) -> Tensor:
    y = x.exp()
    y.flatten(1).mul_(2)
    return y.sin()


def view_read_later(m: nn.Module, x: Tensor) -> Tensor:
    y = x.exp()
    v = y.flatten(1)
    y.mul_(2)
    return v.sin()


def view_read_before(m: nn.Module, x: Tensor) -> Tensor:
    y = x.exp()
    z = y.flatten(1).sin()
    y.mul_(2)
    return y.flatten(1) + z


def written_twice(m: nn.Module, x: Tensor) -> Any:
    y = x.exp()
    first = y.sin()
    y.add_(first)
    second = y.cos()
    y.mul_(second)
    return y, first, second


def view_of_a_subgraph(m: nn.Module, x: Tensor) -> Tensor:
    y = x.exp()
    with torch.no_grad():
        v = y.flatten(1)
    y.mul_(2)
    return v.sin()


def dropout_alias(m: nn.Module, x: Tensor) -> Tensor:
    y = x.exp()
    z = nn.functional.dropout(y, 0.5, False)
    z.add_(1)
    return y * z


CONVERTED: dict[str, Function] = {
    "a sum": lambda m, x: x.exp().add_(x),
    "a rectifier": lambda m, x: x.exp().sub_(1.5).relu_().clamp_(0, 1),
    "read later under its old name": lambda m, x: ((y := x.exp()).mul_(3), y + 1)[1],
    "written twice, read between": written_twice,
    "a view that is read before": view_read_before,
    "to itself": lambda m, x: (y := x.exp()).add_(y),
    "the output under both names": lambda m, x: ((y := x.exp()), y.add_(1)),
    "broadcast": lambda m, x: x.exp().add_(x[:1]),
}
LEFT: dict[str, Function] = {
    "an input": lambda m, x: x.add_(1),
    "a view of an input": lambda m, x: (x.flatten(1).add_(1), x.exp())[1],
    "a buffer": lambda m, x: (m.b.running_mean.add_(1), x + m.b.running_mean[:, None])[1],
    "a view of a buffer": lambda m, x: m.b.running_mean.view(1, 6, 1).add_(1) * x,
    "half of a value": split_written,
    "a value that a subgraph shows": view_of_a_subgraph,
    "a view whose base is read later": base_read_later,
    "a base whose view is read later": view_read_later,
    "a result of dropout in evaluation, whose operand is read later": dropout_alias,
    "at random": lambda m, x: x.exp().bernoulli_(0.5) * 0,
    "into a part": lambda m, x: ((y := x.exp()), y[:, :2].add_(1), y.sin())[2],
}


def program_of(function: Function) -> tuple[torch.export.ExportedProgram, tuple[Tensor, ...]]:
    model, inputs = functional(((2, 6, 4),), function, b=lambda: nn.BatchNorm1d(6))()
    return torch.export.export(model, inputs), inputs


def run(program: torch.export.ExportedProgram, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    given = tuple(x.clone() for x in inputs)
    torch.manual_seed(0)
    return [*run_program(program, given), *given]


def list_targets(program: torch.export.ExportedProgram) -> list[Any]:
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def count_in_place(graph: torch.fx.Graph) -> int:
    calls = [node for node in graph.nodes if node.op == "call_function"]
    return sum(str(node.target).endswith(("_.default", "_.Tensor", "_.Scalar", "_.float")) for node in calls)


@pytest.mark.parametrize("name", [*CONVERTED, *LEFT])
def test_nobody_sees_it(name: str) -> None:
    program, inputs = program_of((CONVERTED | LEFT)[name])
    editor = GraphEditor.on_copy(program)
    assert bool(count_in_place(editor.graph)) == (name in LEFT)
    finished = editor.finish()
    assert list_targets(finished) == list_targets(program)
    for a, b in zip(run(program, inputs), run(finished, inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CONVERTED)
def test_the_functional_program_is_the_same_function(name: str) -> None:
    program, inputs = program_of(CONVERTED[name])
    editor = GraphEditor.on_copy(program)
    editor.host._in_place.clear()  # type: ignore[attr-defined]
    finished = editor.finish()
    assert not count_in_place(finished.graph)
    assert foldproof.prove(program, finished, inputs).kind is Kind.PROVED
    for a, b in zip(run(program, inputs), run(finished, inputs), strict=True):
        assert torch.equal(a, b)


def test_a_rectifier_behind_a_fold_stays_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 3, 1)).eval()
    result = foldproof.fuse(model, (torch.randn(2, 3, 7, 8),))
    assert dict(result.operators_after) == {"aten.conv2d.default": 2, "aten.relu_.default": 1}


def test_what_others_read_after_a_fold_is_not_overwritten() -> None:
    """Without the normalisation, the sum is another reader of the convolution than the rectifier."""

    def function(m: Any, x: Tensor) -> Tensor:
        y = m.n(m.a(x))
        z = y * 1.0
        return z.relu_() + y

    model, inputs = functional(((2, 3, 7, 8),), function, a=lambda: nn.Conv2d(3, 6, 3), n=lambda: nn.BatchNorm2d(6))()
    result = foldproof.fuse(model, inputs)
    assert result.rewrites and result.verdict.kind is Kind.PROVED
    torch.testing.assert_close(result.program.module()(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)  # type: ignore[union-attr, operator]
