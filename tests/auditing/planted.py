"""Compilations with gradients, and faults for the graphs after their steps: each changes a node or two.

A fault is what a wrong pass would do: a term forgotten, a sign, another axis, a second draw of a mask.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from foldproof.auditing.compilers.inductor import COMPILER
from foldproof.auditing.gradients import MakeOptimizer, TrainedCall
from foldproof.auditing.log import Log
from foldproof.auditing.snapshot import Snapshot
from foldproof.auditing.step import Step
from foldproof.graph.module import InterpretedModule
from foldproof.verdict import Verdict

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


class Classifier(nn.Module):
    """Convolution, batch normalization, pooling and cross entropy: a model that returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(12, 3)

    def forward(self, x: Tensor, targets: Tensor) -> Any:
        h = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return F.cross_entropy(self.head(F.avg_pool2d(h, 1).flatten(1)), targets)


@dataclass(frozen=True)
class Case:
    """A model, the shape of its input, further inputs, and the optimizer."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    others: tuple[Any, ...] = ()
    optimizer: MakeOptimizer | None = None


_ADAM: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}

CASES = {
    "small": Case(Small, (3, 3)),
    "classifier": Case(Classifier, (2, 2, 4, 4), (torch.tensor([0, 2]),)),
    "SGD": Case(
        lambda: nn.Linear(2, 3),
        (2, 2),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    "Adam": Case(lambda: nn.Linear(2, 3), (2, 2), optimizer=functools.partial(torch.optim.Adam, **_ADAM)),
    "AdamW": Case(lambda: nn.Linear(2, 3), (2, 2), optimizer=functools.partial(torch.optim.AdamW, **_ADAM)),
}


@functools.cache
def recorded(name: str) -> dict[str, Step]:
    """The steps of one compilation by their titles."""
    case = CASES[name]
    torch.manual_seed(0)
    model, given = case.make().train(), (torch.randn(case.shape), *case.others)
    log = Log()
    step = TrainedCall(model, given, {}, case.optimizer)
    COMPILER.compile(model, given, {}, {"fallback_random": True}, log, step)
    steps = [Step(change, given) for change in log.changes if change.fired]
    return {step.title: step for step in steps}


Change = Callable[[fx.Node], None]


@dataclass(frozen=True)
class Fault:
    """A change of the ``place``-th call of an operator in the graph after a step."""

    case: str
    step: str
    operator: Any
    place: int
    change: Change

    @property
    def verdict(self) -> Verdict:
        """The verdict on the step with the changed graph."""
        step = recorded(self.case)[self.step]
        module = copy.deepcopy(step.after)
        calls = [n for n in module.graph.nodes if n.op == "call_function" and n.target is self.operator]
        self.change(calls[self.place])
        after = Snapshot(InterpretedModule(module, module.graph), copies=step.change.after.copies)
        return Step(replace(step.change, after=after), ()).verdict


# ---------------------------------------------------------------------------------------------------- changes


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


def keyword(name: str, value: Any) -> Change:
    """Give another keyword argument."""

    def change(node: fx.Node) -> None:
        node.kwargs = {**node.kwargs, name: value}

    return change


def operand(node: fx.Node) -> None:
    """Leave the operator out: its users read its first operand."""
    node.replace_all_uses_with(node.args[0])


def second(node: fx.Node) -> None:
    """Leave the operator out: its users read its second operand."""
    node.replace_all_uses_with(node.args[1])


def last(node: fx.Node) -> None:
    """Leave the operator out: its users read its last operand."""
    node.replace_all_uses_with(node.args[-1])


def swapped(node: fx.Node) -> None:
    """Swap both operands."""
    node.args = (node.args[1], node.args[0], *node.args[2:])


def removed(node: fx.Node) -> None:
    """Leave a write out."""
    node.graph.erase_node(node)


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


def decayed_after_momentum(node: fx.Node) -> None:
    """Give momentum the gradient without decay, and decay the update: ``node`` adds the decay."""
    gradient, momentum = node.args[0], next(iter(node.users))
    momentum.args = tuple(gradient if x is node else x for x in momentum.args)
    update = next(user for user in momentum.users if user.target is aten.add.Tensor)
    with node.graph.inserting_before(update):
        made = node.graph.call_function(aten.add.Tensor, (momentum, node.args[1]), dict(node.kwargs))
    update.args = tuple(made if x is momentum else x for x in update.args)


# ---------------------------------------------------------------------------------------------------- faults


def _faults(case: str, step: str, changes: dict[str, tuple[Any, int, Change]]) -> dict[str, Fault]:
    return {f"{case}, {step}: {name}": Fault(case, step, *change) for name, change in changes.items()}


_ADD, _SUB, _MUL, _DIV = aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor
_SUM, _MM, _DROPOUT = aten.sum.dim_IntList, aten.mm.default, aten.native_dropout.default

_ADAM_FAULTS: dict[str, tuple[Any, int, Change]] = {
    "the square of the gradient is the gradient": (_MUL, 1, operand),
    "the second moment keeps its whole past": (_MUL, 0, operand),
}

FAULTS = {
    **_faults(
        "small",
        "AOTAutograd",
        {
            "the sign of a term through the mean": (_SUB, -2, becomes(_ADD)),
            "the term through the mean is forgotten": (_SUB, -2, operand),
            "the term through the variance is forgotten": (_SUB, -1, operand),
            "the mean is not divided by the size": (_DIV, -1, operand),
            "a bias is reduced along the wrong axis": (_SUM, -2, argument(1, [1])),
            "a weight is reduced along the wrong axis": (_SUM, -3, argument(1, [1])),
            "operands of a product are swapped": (_MM, -1, swapped),
            "a gradient is negated": (_MM, -1, negated),
            "the mask of the dropout is drawn twice": (_DROPOUT, 0, drawn_again),
            "the dropout has another probability": (_DROPOUT, 0, argument(1, 0.5)),
            "an epsilon is forgotten": (_ADD, 1, operand),
            "the buffer counts by two": (_ADD, 0, argument(1, 2.0)),
        },
    ),
    **_faults(
        "small",
        "remove_noop_ops",
        {"a factor is lost": (_MUL, -1, operand), "a term is lost": (_SUB, -1, operand)},
    ),
    **_faults(
        "small",
        "partition",
        {
            "a sign": (_SUB, -1, becomes(_ADD)),
            "the mask is drawn again": (_DROPOUT, 0, drawn_again),
            "a factor is lost": (_MUL, -1, operand),
            "a gradient is negated": (_MM, -1, negated),
            "a value that is computed again lacks its epsilon": (_ADD, -1, operand),
        },
    ),
    **_faults("small", "lowering, forward", {"a term is lost": (_ADD, -1, operand)}),
    **_faults(
        "small",
        "lowering, backward",
        {
            "a term is lost": (_SUB, -1, operand),
            "a sum lacks a row": (_ADD, -1, operand),
            "a factor is lost": (_MUL, -1, operand),
        },
    ),
    **_faults(
        "classifier",
        "AOTAutograd",
        {
            "the sum over a row of the softmax is forgotten": (_SUB, 3, operand),
            "the gradient lacks the factor of the loss's mean": (_DIV, 1, operand),
            "the mask of relu is forgotten": (aten.where.self, 4, last),
            "the term through the mean is forgotten": (_SUB, 7, operand),
            "the running variance is biased": (_MUL, 3, operand),
            "the momentum of the mean": (_MUL, 1, argument(1, 0.9)),
        },
    ),
    **_faults(
        "classifier",
        "remove_noop_ops",
        {
            "a sum along the other axis of the softmax": (_SUM, 1, argument(1, [0])),
            "the sign of the target": (aten.scatter.value, 0, argument(3, 1.0)),
            "the loss is a sum": (_DIV, 0, operand),
            "the logits' gradient is negated": (_SUB, 3, negated),
            "the head's weight gradient is negated": (_MM, 1, negated),
            "the features' gradient is negated": (_MM, 0, negated),
            "the mask of relu is of the other side": (aten.le.Scalar, 0, becomes(aten.gt.Scalar)),
            "the sign of the term through the mean": (_SUB, 7, becomes(_ADD)),
            "the term through the variance is forgotten": (_SUB, 6, operand),
            "the sign of the term through the variance": (_SUB, 6, becomes(_ADD)),
        },
    ),
    **_faults(
        "SGD",
        "AOTAutograd, optimizer",
        {
            "the decay is forgotten": (_ADD, 0, operand),
            "the sign of the decay": (_ADD, 0, keyword("alpha", -0.1)),
            "the decay is one of the update": (_ADD, 0, decayed_after_momentum),
            "the momentum has another rate": (_MUL, 0, argument(1, 0.99)),
            "the past is forgotten": (_ADD, 1, second),
            "the gradient is forgotten": (_ADD, 1, operand),
            "the sign of the step": (_ADD, 2, keyword("alpha", 0.1)),
            "another rate": (_ADD, 2, keyword("alpha", -0.01)),
            "momentum is not written": (aten.copy_.default, -1, removed),
            "the parameter is not written": (aten.copy_.default, 0, removed),
        },
    ),
    **_faults(
        "SGD",
        "lowering, optimizer",
        {"a term is lost": (_ADD, -1, operand), "a factor is lost": (_MUL, -1, operand)},
    ),
    **_faults(
        "Adam",
        "AOTAutograd, optimizer",
        _ADAM_FAULTS,
    ),
}
