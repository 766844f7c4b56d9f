"""Faults planted into the steps of an audit with gradients: each is REFUTED at its step.

One model is compiled. Each fault changes one node of the graph after a step, as a wrong pass would.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from foldproof import Kind
from foldproof.auditing.compilers.inductor import COMPILER
from foldproof.auditing.gradients import TrainedCall
from foldproof.auditing.log import Log
from foldproof.auditing.snapshot import Snapshot
from foldproof.auditing.step import Step
from foldproof.graph.module import InterpretedModule

aten = torch.ops.aten


class Small(nn.Module):
    """A norm, a dropout, and a buffer that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: Tensor) -> Any:
        self.count.add_(1.0)
        return torch.tanh(F.dropout(self.norm(self.linear(x)), 0.25))


@functools.cache
def recorded() -> dict[str, Step]:
    """The steps of one compilation by their titles."""
    torch.manual_seed(0)
    model, x = Small().train(), torch.randn(3, 3)
    log = Log()
    COMPILER.compile(model, (x,), {}, {"fallback_random": True}, log, TrainedCall(model, (x,), {}))
    steps = [Step(change, (x,)) for change in log.changes if change.fired]
    return {step.title: step for step in steps}


Change = Callable[[fx.Node], None]


def becomes(target: Any) -> Change:
    """Call another operator."""

    def change(node: fx.Node) -> None:
        node.target = target

    return change


def argument(place: int, value: Any) -> Change:
    """Give another argument."""

    def change(node: fx.Node) -> None:
        node.args = (*node.args[:place], value, *node.args[place + 1 :])

    return change


def operand(node: fx.Node) -> None:
    """Leave the operator out: its users read its first operand."""
    node.replace_all_uses_with(node.args[0])


def swapped(node: fx.Node) -> None:
    """Swap both operands."""
    node.args = (node.args[1], node.args[0], *node.args[2:])


def negated(node: fx.Node) -> None:
    """Turn the sign of the result."""
    with node.graph.inserting_after(node):
        made = node.graph.call_function(aten.neg.default, (node,))
    node.replace_all_uses_with(made, lambda user: user is not made)


def drawn_again(node: fx.Node) -> None:
    """Draw a second mask for the backward."""
    with node.graph.inserting_after(node):
        again = node.graph.node_copy(node)
    mask = next(user for user in node.users if user.args[1] == 1)
    mask.args = (again, 1)


@dataclass(frozen=True)
class Fault:
    """A change of the ``place``-th call of an operator in the graph after a step."""

    step: str
    operator: Any
    place: int
    change: Change


FAULTS = {
    "the sign of a term through the mean": Fault("AOTAutograd", aten.sub.Tensor, -2, becomes(aten.add.Tensor)),
    "the term through the mean is forgotten": Fault("AOTAutograd", aten.sub.Tensor, -2, operand),
    "the term through the variance is forgotten": Fault("AOTAutograd", aten.sub.Tensor, -1, operand),
    "the mean is not divided by the size": Fault("AOTAutograd", aten.div.Tensor, -1, operand),
    "a bias is reduced along the wrong axis": Fault("AOTAutograd", aten.sum.dim_IntList, -2, argument(1, [1])),
    "a weight is reduced along the wrong axis": Fault("AOTAutograd", aten.sum.dim_IntList, -3, argument(1, [1])),
    "operands of a product are swapped": Fault("AOTAutograd", aten.mm.default, -1, swapped),
    "a gradient is negated": Fault("AOTAutograd", aten.mm.default, -1, negated),
    "the mask of the dropout is drawn twice": Fault("AOTAutograd", aten.native_dropout.default, 0, drawn_again),
    "the dropout has another probability": Fault("AOTAutograd", aten.native_dropout.default, 0, argument(1, 0.5)),
    "an epsilon is forgotten": Fault("AOTAutograd", aten.add.Tensor, 1, operand),
    "the buffer counts by two": Fault("AOTAutograd", aten.add.Tensor, 0, argument(1, 2.0)),
    "joint pass: a factor is lost": Fault("remove_noop_ops", aten.mul.Tensor, -1, operand),
    "joint pass: a term is lost": Fault("remove_noop_ops", aten.sub.Tensor, -1, operand),
    "partition: a sign": Fault("partition", aten.sub.Tensor, -1, becomes(aten.add.Tensor)),
    "partition: the mask is drawn again": Fault("partition", aten.native_dropout.default, 0, drawn_again),
    "partition: a factor is lost": Fault("partition", aten.mul.Tensor, -1, operand),
    "partition: a gradient is negated": Fault("partition", aten.mm.default, -1, negated),
    "partition: a value that is computed again lacks its epsilon": Fault("partition", aten.add.Tensor, -1, operand),
    "lowering of the forward: a term is lost": Fault("lowering, forward", aten.add.Tensor, -1, operand),
    "lowering of the backward: a term is lost": Fault("lowering, backward", aten.sub.Tensor, -1, operand),
    "lowering of the backward: a sum lacks a row": Fault("lowering, backward", aten.add.Tensor, -1, operand),
    "lowering of the backward: a factor is lost": Fault("lowering, backward", aten.mul.Tensor, -1, operand),
}


@pytest.mark.parametrize("title", ["AOTAutograd", "partition", "lowering, forward", "lowering, backward"])
def test_right_steps_are_proved(title: str) -> None:
    assert recorded()[title].verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), recorded()[title].verdict


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refuted_at_its_step(name: str) -> None:
    fault = FAULTS[name]
    step = recorded()[fault.step]
    module = copy.deepcopy(step.after)
    calls = [n for n in module.graph.nodes if n.op == "call_function" and n.target is fault.operator]
    fault.change(calls[fault.place])
    after = Snapshot(InterpretedModule(module, module.graph), copies=step.change.after.copies)
    verdict = Step(replace(step.change, after=after), ()).verdict
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.counterexample is not None
