"""Graphs of compilers that were traced with dynamic sizes: tried at those sizes only that they were traced for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from foldproof import Kind, prove
from foldproof.proof.shapes import sampled_inputs

from .models import Module

X = torch.randn(6, 4)


def traced(function: Callable[..., Any]) -> fx.GraphModule:
    made: fx.GraphModule = make_fx(function, tracing_mode="symbolic")(X)
    return made


def with_size(function: Callable[[Tensor, Any], Tensor]) -> fx.GraphModule:
    """As AOTAutograd hands graphs over: the size is an input beside the tensor."""
    module = traced(lambda x: function(x, x.shape[0]))
    tensor = next(n for n in module.graph.nodes if n.op == "placeholder")
    with module.graph.inserting_before(tensor):
        size = module.graph.placeholder("size")
    size.meta["val"] = tensor.meta["val"].shape[0]
    for node in list(module.graph.nodes):
        if node.target in (torch.ops.aten.sym_size.int, torch.ops.aten.sym_size):
            node.replace_all_uses_with(size)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def test_integers_that_stand_for_sizes_go_along() -> None:
    average = with_size(lambda x, n: x.sum(0) / n)
    assert [(size, tuple(x.shape)) for (size, x), _ in sampled_inputs(average, (6, X), {})] == [
        (6, (6, 4)),
        (2, (2, 2)),
        (7, (7, 5)),
    ]
    found = prove(average, with_size(lambda x, n: x.mean(0)), (6, X))
    assert found.kind is Kind.PROVED, str(found)
    assert prove(average, with_size(lambda x, n: x.sum(0) / 6), (6, X)).kind is Kind.REFUTED


def test_sizes_that_are_made_of_others() -> None:
    def exported(total: int | None, sizes: Any) -> torch.export.ExportedProgram:
        average = Module(lambda s, x: x.view(-1, 2, x.shape[1]).sum((0, 1)) / (total or x.shape[0]))
        return torch.export.export(average, (X,), dynamic_shapes=((sizes,),))

    pairs, columns = torch.export.Dim("pairs", max=64), torch.export.Dim("columns", min=2, max=64)
    for sizes in ({0: 2 * pairs}, {0: 2 * pairs, 1: columns}):
        found = prove(exported(None, sizes), exported(None, sizes), (X,))
        assert found.kind is Kind.PROVED and found.proof is not None and len(found.claim.shapes) == 3, str(found)
    assert prove(exported(None, {0: 2 * pairs}), exported(6, {0: 2 * pairs}), (X,)).kind is Kind.REFUTED


def even(function: Callable[[Tensor, Any], Tensor]) -> fx.GraphModule:
    def called(x: Tensor) -> Tensor:
        assert x.shape[0] % 2 == 0
        return function(x, x.shape[0])

    return traced(called)


def test_sizes_that_break_a_guard_are_left_out() -> None:
    found = prove(even(lambda x, n: x[: n // 2 * 2] + 1), even(lambda x, n: x + 1), (X,))
    assert found.kind is Kind.PROVED and found.proof is not None, str(found)
    assert found.claim.shapes == ("(6, 4)", "(2, 2)")


def by_dynamo(function: Callable[[Tensor], Tensor]) -> fx.GraphModule:
    seen: list[fx.GraphModule] = []

    def backend(module: fx.GraphModule, inputs: list[Any]) -> Any:
        seen.append(module)
        return module

    torch.compiler.reset()
    torch.compile(function, backend=backend, dynamic=True)(X)
    return seen[0]


def test_graphs_of_dynamo() -> None:
    average = by_dynamo(lambda x: x.sum(0) / x.shape[0])
    found = prove(average, by_dynamo(lambda x: x.mean(0) + 0 * x.shape[0] * x.shape[1]), (6, 4, X))
    assert found.kind is Kind.PROVED and found.proof is not None and len(found.claim.shapes) == 3, str(found)
    fixed = by_dynamo(lambda x: x.sum(0) / 6 + 0 * x.shape[0] * x.shape[1])
    assert prove(average, fixed, (6, 4, X)).kind is Kind.REFUTED


def test_integers_that_are_no_sizes_are_held() -> None:
    seen: list[fx.GraphModule] = []
    torch.compiler.reset()
    torch.compile(lambda x, n: x * n, backend=lambda m, _: (seen.append(m), m)[1], dynamic=True)(X, 5)
    (times,) = seen
    found = prove(times, times, (6, 4, X, 5))
    assert found.kind is Kind.PROVED and found.proof is not None and len(found.claim.shapes) == 3, str(found)


def test_a_number_that_sizes_are_compared_with() -> None:
    """Beyond it, the sizes tried show what they do not show below."""
    rows = torch.export.Dim("rows", max=1000)

    def exported(function: Callable[[Any, Tensor], Tensor]) -> torch.export.ExportedProgram:
        return torch.export.export(Module(function), (X,), dynamic_shapes=(({0: rows},),))

    def position(x: Tensor) -> Tensor:
        return torch.arange(x.shape[0])[:, None]

    plain = exported(lambda s, x: x + position(x))
    for other in (
        exported(lambda s, x: x + position(x) + torch.sym_max(x.shape[0] - 20, 0)),
        exported(lambda s, x: x + position(x).clamp(max=40)),
        exported(lambda s, x: x + position(x) + position(x) // 100),
    ):
        for pair in ((plain, other), (other, plain)):
            assert prove(*pair, (X,)).kind is Kind.REFUTED
    same = prove(exported(lambda s, x: x + position(x) * 1), plain, (X,))
    assert same.kind is Kind.PROVED and same.claim is not None and len(same.claim.shapes) == 3


def test_a_number_that_no_input_of_moderate_size_reaches() -> None:
    rows = torch.export.Dim("rows", max=10**9)
    far = Module(lambda s, x: x + torch.arange(x.shape[0])[:, None].clamp(max=10**8))
    program = torch.export.export(far, (X,), dynamic_shapes=(({0: rows},),))
    assert [x.shape[0] for (x,), _ in sampled_inputs(program, (X,), {})] == [6, 1, 7]
