"""Cutting regions out of graphs."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from foldproof.graph.region import collect_dependencies, cut_region


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a = torch.relu(x)
        b = a * self.weight
        return torch.sub(b, y) + a


def nodes_of(module: fx.GraphModule) -> dict[str, fx.Node]:
    return {node.name: node for node in module.graph.nodes}


def test_a_region_computes_what_its_nodes_compute() -> None:
    module = fx.symbolic_trace(Model())
    n = nodes_of(module)
    region = cut_region([n["mul"], n["sub"]], [n["sub"], n["mul"]], constants={n["weight"]: "weight"})
    assert region.inputs == (n["relu"], n["y"])
    assert region.copies[n["mul"]].graph is region.graph
    a, y = torch.randn(2, 3), torch.randn(2, 3)
    sub, mul = fx.GraphModule({"weight": module.weight}, region.graph)(a, y)
    assert torch.equal(mul, a * module.weight) and torch.equal(sub, mul - y)


def test_two_regions_get_the_same_inputs() -> None:
    n = nodes_of(fx.symbolic_trace(Model()))
    names = {n["y"]: "first", n["relu"]: "second"}
    region = cut_region([n["relu"]], n["relu"], inputs=[n["y"]], name=lambda node: names.get(node, node.name))
    assert [node.name for node in region.graph.nodes] == ["first", "x", "relu", "output"]
    assert region.graph.output_node().args == (region.copies[n["relu"]],), "one result is put out bare"


def test_known_values_stand_for_nodes_and_results_may_lie_outside() -> None:
    n = nodes_of(fx.symbolic_trace(Model()))
    region = cut_region([n["add"]], [n["add"], n["x"]], known={n["sub"]: 2.0})
    x, a = torch.randn(3), torch.randn(3)
    assert region.inputs == (n["relu"], n["x"])
    add, same = fx.GraphModule({}, region.graph)(a, x)
    assert torch.equal(add, a + 2) and same is x


def test_dependencies_come_before_what_reads_them() -> None:
    module = fx.symbolic_trace(Model())
    n = nodes_of(module)
    assert [node.name for node in collect_dependencies([n["sub"]])] == ["x", "relu", "weight", "mul", "y", "sub"]
    stopped = collect_dependencies([n["add"]], stop=lambda node: node.op != "call_function" or node is n["mul"])
    assert [node.name for node in stopped] == ["sub", "relu", "add"]
    n["mul"].append(n["relu"])  # which it reads: passes leave graphs in such an order
    order = collect_dependencies(module.graph.nodes)
    assert len(order) == len(module.graph.nodes)
    assert all(order.index(x) < order.index(node) for node in order for x in node.all_input_nodes)
