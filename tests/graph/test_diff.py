"""Marks of nodes in two programs that are shown side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export

import foldproof
from foldproof.graph.diff import diff_graphs, label_by_content

Program = ExportedProgram | fx.GraphModule

X = torch.randn(2, 4)


class Named(nn.Module):
    """A linear under some name, and what is made of it."""

    def __init__(self, name: str, then: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.add_module(name, nn.Linear(4, 4))
        self.linear, self.then = [self._modules[name]], then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.linear[0](x), x)


def exported(name: str, then: Callable[[Tensor, Tensor], Tensor]) -> ExportedProgram:
    return export(Named(name, then).eval(), (X,))


def marked(before: Program, after: Program) -> tuple[set[str], set[str]]:
    found = diff_graphs(label_by_content(before), label_by_content(after))
    return {n.name for n in found.only_before}, {n.name for n in found.only_after}


@pytest.mark.parametrize("form", [lambda program: program, lambda program: program.module()])
def test_names_and_order_are_nothing(form: Callable[[ExportedProgram], Program]) -> None:
    one = exported("one", lambda h, x: torch.relu(h) + torch.tanh(x))

    def other_order(h: Tensor, x: Tensor) -> Tensor:
        tanh = torch.tanh(x)
        return torch.relu(h) + tanh

    assert marked(form(one), form(exported("other", other_order))) == (set(), set())


def test_operators_attributes_constants_and_operands_are_something() -> None:
    base = exported("one", lambda h, x: torch.softmax(h - x, 1).relu())
    swapped = exported("one", lambda h, x: torch.softmax(x - h, 1).relu())
    assert marked(base, swapped) == ({"sub"}, {"sub"}), "what follows from a difference is not marked, too"
    attribute = exported("one", lambda h, x: torch.softmax(h - x, 0).relu())
    assert marked(base, attribute) == ({"softmax"}, {"softmax"})
    operator = exported("one", lambda h, x: torch.softmax(h - x, 1).tanh())
    assert marked(base, operator) == ({"relu"}, {"tanh"})
    base.state_dict["one.weight"] = nn.Parameter(base.state_dict["one.weight"] + 1)
    assert marked(base, swapped) == ({"linear", "sub"}, {"linear", "sub"})


def test_modules_that_are_called_are_known_by_what_they_hold() -> None:
    def traced(scale: float) -> fx.GraphModule:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        model[2].weight.data.mul_(scale)
        return fx.symbolic_trace(model)

    assert marked(traced(1), traced(1)) == (set(), set())
    assert marked(traced(1), traced(2)) == ({"_2"}, {"_2"})


def test_a_fold_marks_what_it_changed() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    ).eval()
    model[1].running_mean.normal_(), model[4].running_mean.normal_()
    args = (torch.randn(2, 3, 4, 4),)
    folded = foldproof.fuse(model, args).program
    assert isinstance(folded, ExportedProgram)
    before, after = marked(export(model, args), folded)
    assert before == {"conv2d", "batch_norm", "conv2d_1", "batch_norm_1"} and after == {"conv2d", "conv2d_1"}


class Chooses(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.function, torch.cos, (x,))


def test_branches_are_known_by_their_graphs() -> None:
    first, same, other = (export(Chooses(f), (X,)) for f in (torch.sin, torch.sin, torch.tan))
    assert marked(first, same) == (set(), set())
    assert marked(first, other) != (set(), set())
