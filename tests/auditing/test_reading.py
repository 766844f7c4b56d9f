"""Readings of pipeline operators, compared with the operators themselves."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import fx, nn

from foldproof.auditing.reading import written
from foldproof.auditing.snapshot import Snapshot, is_functional

mkldnn, prims, aten = torch.ops.mkldnn, torch.ops.prims, torch.ops.aten
X, W, B = torch.randn(2, 4, 6, 6), torch.randn(8, 4, 3, 3), torch.randn(8)
T = torch.randn(4, 8, 3, 3)
OTHER = torch.randn(2, 8, 4, 4)
GEOMETRY = ([0, 0], [1, 1], [1, 1], 1)

CALLS = {
    "convert": (prims.convert_element_type.default, (X, torch.float64)),
    "view": (aten.view.default, (X, [2, 144])),
    **{
        f"convolution, {attr}": (mkldnn._convolution_pointwise.default, (X, W, B, *GEOMETRY, attr, scalars, how))
        for attr, scalars, how in (
            ("none", [], ""),
            ("relu", [], ""),
            ("sigmoid", [], ""),
            ("tanh", [], ""),
            ("swish", [], ""),
            ("hardswish", [], ""),
            ("hardsigmoid", [], ""),
            ("gelu", [], "none"),
            ("gelu", [], "tanh"),
            ("leaky_relu", [0.1], ""),
            ("hardtanh", [-0.5, 0.5], ""),
        )
    },
    "convolution + other": (
        mkldnn._convolution_pointwise.binary,
        (X, OTHER, W, B, *GEOMETRY, "add", 1.0, "relu", [], None),
    ),
    "linear": (mkldnn._linear_pointwise.default, (torch.randn(3, 5), torch.randn(7, 5), None, "relu", [], "")),
    "linear + other": (
        mkldnn._linear_pointwise.binary,
        (torch.randn(3, 5), torch.randn(3, 7), torch.randn(7, 5), torch.randn(7), "add"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_reading_computes_what_the_operator_does(name: str) -> None:
    target, args = CALLS[name]
    snapshot = Snapshot(_graph(target, args))
    assert not any(str(n.target).startswith(("mkl", "prims")) for n in snapshot.graph.nodes)
    given = [a for a in args if isinstance(a, torch.Tensor)]
    torch.testing.assert_close(fx.Interpreter(snapshot.module).run(*given), target(*args))


def test_packed_weights_of_transposed_convolutions() -> None:
    """Packing and convolution are read together: the packed weight has its output channels first."""
    graph = fx.Graph()
    x, w, b = (graph.placeholder(name) for name in "xwb")
    pack = mkldnn._reorder_convolution_transpose_weight
    packed = graph.call_function(pack, (w, [0, 0], [0, 0], [1, 1], [1, 1], 1, [2, 4, 6, 6]))
    more = ([0, 0], [0, 0], [1, 1], [1, 1], 1, "none", [], "")
    graph.output(graph.call_function(mkldnn._convolution_transpose_pointwise.default, (x, packed, b, *more)))
    module = fx.GraphModule(nn.Module(), graph)
    read = fx.Interpreter(Snapshot(module).module).run(X, T, B)
    torch.testing.assert_close(read, module(X, T, B))
    torch.testing.assert_close(read, nn.functional.conv_transpose2d(X, T, B))


def _graph(target: Any, args: tuple[Any, ...]) -> fx.GraphModule:
    graph = fx.Graph()
    given = [graph.placeholder(f"x{i}") if isinstance(a, torch.Tensor) else a for i, a in enumerate(args)]
    graph.output(graph.call_function(target, tuple(given)))
    return fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "functional"),
    [
        (aten.add.Tensor, 2, {}, True),
        (aten.add_.Tensor, 2, {}, False),
        (aten.bernoulli.default, 1, {}, False),
        (torch.relu, 1, {}, True),
        (torch.relu_, 1, {}, False),
        (nn.functional.relu, 1, {"inplace": True}, False),
        (nn.functional.dropout, 1, {}, False),
        (torch.add, 2, {"out": None}, True),
        (nn.functional.embedding, 2, {}, True),
        (nn.functional.embedding, 2, {"max_norm": 1.0}, False),
        (nn.functional.embedding_bag, 2, {"max_norm": 1.0}, False),
        (torch._native_batch_norm_legit, 5, {}, False),
        (torch.lstm, 4, {}, False),
        (operator.call, 2, {}, False),
    ],
)
def test_what_surely_writes_to_nothing(target: Any, args: int, kwargs: dict[str, Any], functional: bool) -> None:
    graph = fx.Graph()
    node = graph.call_function(target, tuple(graph.placeholder(f"x{i}") for i in range(args)), kwargs)
    assert is_functional(node) is functional


def test_memory_that_others_read_is_written_to() -> None:
    """relu(x) + 1, written over relu(x), which is read afterwards."""
    graph = fx.Graph()
    y = graph.call_function(aten.relu.default, (graph.placeholder("x"),))
    added = graph.call_function(aten.add.out, (y, 1.0), {"out": y})
    graph.output((added, graph.call_function(aten.mul.Tensor, (y, 2.0))))
    assert not Snapshot(fx.GraphModule({}, graph)).functional


def test_memory_of_its_own_is_left_out() -> None:
    graph = fx.Graph()
    memory = graph.call_function(aten.empty.memory_format, ([3],))
    graph.output(graph.call_function(aten.add.out, (graph.placeholder("x"), 1.0), {"out": memory}))
    assert [n.target for n in Snapshot(fx.GraphModule({}, graph)).graph.nodes][-2] is aten.add.Tensor


def test_an_element_of_a_literal_tuple() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(operator.getitem, ((graph.call_function(torch.relu, (x,)), x), 0)))
    assert Snapshot(fx.GraphModule({}, graph)).functional


def test_batch_statistics_are_written() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    call = (x, x, x, x, x)
    assert is_functional(graph.call_function(aten.batch_norm.default, (*call, False, 0.1, 1e-5, False)))
    assert not is_functional(graph.call_function(aten.batch_norm.default, (*call, True, 0.1, 1e-5, False)))


def test_arguments_are_written_as_python_that_runs() -> None:
    node = fx.Graph().placeholder("x")
    value = ([node, slice(None, node)], float("-inf"), torch.device("cpu"), torch.float16, "text")
    text = written(value, lambda n: f"{n.name}_1")
    assert text == "([x_1, slice(None, x_1, None)], float('-inf'), torch.device('cpu'), torch.float16, 'text')"
    assert eval(text, {"torch": torch, "x_1": 3})[1:] == value[1:]


def test_operators_in_an_order_are_themselves() -> None:
    """Inductor wraps random draws, so that they keep their order."""
    from torch._inductor.fx_passes.control_dependencies import preserve_node_ordering

    module = _graph(aten.add.Tensor, (X, X))
    snapshot = Snapshot(module)
    add = next(n for n in module.graph.nodes if n.op == "call_function")
    preserve_node_ordering(module.graph, {add: {module.graph.find_nodes(op="placeholder")[0]}})
    module.recompile()
    ordered = Snapshot(module)
    assert [n.target for n in ordered.graph.nodes if n.op == "call_function"] == [aten.add.Tensor]
    assert ordered.effect == snapshot.effect
