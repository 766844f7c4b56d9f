"""The first difference names the pair of nodes that part: the old one, and the new one that stands for it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export

import foldproof
from foldproof.verdict import Difference


class Model(nn.Module):
    def __init__(self, eps: float = 1e-5, dim: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4, eps=eps)
        self.dim = dim
        with torch.no_grad():
            self.bn.running_mean.normal_()  # type: ignore[union-attr]
            self.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.bn(self.conv(x)).relu().mean((2, 3))).softmax(self.dim)


X = torch.randn(2, 3, 8, 8)


def program(eps: float = 1e-5, dim: int = -1) -> ExportedProgram:
    return export(Model(eps, dim).eval(), (X,))


def difference(before: ExportedProgram, after: ExportedProgram, x: Tensor = X) -> Difference:
    found = foldproof.prove(before, after, (x,)).difference
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fused() -> ExportedProgram:
    result = foldproof.fuse(program(), (X,))
    assert len(result.rewrites) == 1
    return result.program


def test_a_wrong_fold(fused: ExportedProgram) -> None:
    """The new convolution stands for the normalised value: that of the old convolution goes in a right fold, too."""
    wrong = copy.deepcopy(fused)
    with torch.no_grad():
        wrong.state_dict["conv.weight_folded"] *= 1.1
    found = difference(program(), wrong)
    assert (found.operator, found.region[0]) == ("aten.batch_norm.default", "conv2d")
    assert found.after is not None and found.after.operator == "aten.conv2d.default"


def test_a_right_rewrite_before_the_wrong_one() -> None:
    def rewrite(module: fx.GraphModule) -> fx.GraphModule:
        for node in list(module.graph.nodes):
            if node.target is torch.ops.aten.mean.dim:  # right: of 6 by 6 values
                with module.graph.inserting_before(node):
                    total = module.graph.call_function(torch.ops.aten.sum.dim_IntList, (node.args[0], [2, 3]))
                    node.replace_all_uses_with(module.graph.call_function(torch.ops.aten.div.Tensor, (total, 36)))
            if node.target is torch.ops.aten.layer_norm.default:  # wrong
                node.args = (*node.args[:4], 0.1)
        module.recompile()
        return module

    found = foldproof.prove_pass(rewrite, program().module(), (X,)).difference
    assert found is not None and found.operator == "aten.layer_norm.default" and found.region[0] == found.node
    assert found.after is not None and found.after.operator == "aten.layer_norm.default"


def test_an_operator_and_what_it_is_made_of() -> None:
    found = difference(program(), program(eps=0.1).run_decompositions())
    assert found.operator == "aten.layer_norm.default"
    assert found.after is not None and found.after.node.startswith("getitem")


def test_values_that_are_far_apart() -> None:
    found = difference(program(), program(dim=0))
    assert found.after is not None and (found.node, found.after.node) == ("softmax", "softmax")


def test_it_is_printed_and_saved(fused: ExportedProgram) -> None:
    verdict = foldproof.prove(program(), program(dim=0), (X,))
    assert "first difference: softmax (aten.softmax.int)" in str(verdict)
    assert "in the second program softmax (aten.softmax.int)" in str(verdict)
    assert verdict.to_dict()["difference"]["after"]["operator"] == "aten.softmax.int"


class Mean(nn.Module):
    """Writes to a buffer that its output does not show; ``weight`` is a mistake where it is not ¼."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("mean", torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        self.mean.mul_(0.75).add_(y.mean((0, 1)), alpha=self.weight)
        return y * 2


@pytest.mark.parametrize("functional", [False, True])
def test_a_difference_in_state_only(functional: bool) -> None:
    before, after = (export(Mean(weight), (X,)) for weight in (0.25, 0.5))
    if functional:
        before, after = before.run_decompositions({}), after.run_decompositions({})
    verdict = foldproof.prove(before, after, (X,))
    found, shown = verdict.difference, verdict.counterexample
    assert "mean" in verdict.reason and shown is not None and shown.name == "mean after the calls", str(verdict)
    assert found is not None and found.operator.startswith("aten.add"), found


def test_a_difference_in_a_second_call_only() -> None:
    class Shifted(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale
            self.register_buffer("last", torch.zeros(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.scale * self.last
            self.last.copy_(x[0, 0])
            return y

    verdict = foldproof.prove(Shifted(1.0), Shifted(2.0), (X,))
    assert verdict.counterexample is not None and verdict.counterexample.name == "output 0 in the second call"


class Activations(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp().relu().tanh().sin()


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.exp() - 9).tanh().sin()


def test_one_of_two_activations_is_lost_where_they_read_the_same() -> None:
    x = torch.randn(2, 4)
    found = difference(export(Activations(), (x,)), export(Activation(), (x,)), x)
    assert found.operator == "aten.relu.default"
    assert found.after is not None and found.after.operator == "aten.sub.Tensor"
