"""The compiled step of an optimizer: its numbers, and errors; tests of planted faults are in `test_training_faults`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.auditing import api
from foldproof.auditing.gradients import OPTIMIZER, TrainedCall

X = (torch.randn(2, 2, generator=torch.Generator().manual_seed(0)),)
adam = functools.partial(torch.optim.Adam, lr=0.01)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 3)


def test_an_update_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of steps are numbers of float32 in compiled code, which rounds the corrections of Adam's moments."""
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    found = foldproof.audit(linear(), X, training=True, optimizer=adam, locate=False)
    assert {step.part for step in found.steps} >= {"forward", "backward", OPTIMIZER}
    assert all(step.verdict.kind is Kind.PROVED for step in found.steps if step.fired), str(found)
    whole = found.end_to_end
    assert whole is not None and whole.kind is Kind.ROUNDING, str(found)
    names = {one.name for one in whole.outputs}
    assert names >= {"the gradient of weight", "weight after the update", "exp_avg of weight", "step of bias"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [(lambda p: None, Kind.ROUNDING), (lambda p: p.grad.mul_(2), Kind.REFUTED), (lambda p: p.mul_(0.9), Kind.REFUTED)],
)
def test_a_wrong_update_is_refuted_end_to_end(change: Callable[[Any], Any], kind: Kind) -> None:
    model = linear()
    step = TrainedCall(model, X, {}, adam)

    def wrong(update: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> None:
            with torch.no_grad():
                change(model.weight)
            update()

        return call

    found = foldproof.compare(step.trace(model), step.run(model, model, wrong), step.inputs, trials=2, locate=False)
    assert step.name(found).kind is kind, found


def test_each_step_starts_from_the_same_state() -> None:
    model = linear()
    step = TrainedCall(model, X, {}, adam)
    call = step.run(model, model)
    for first, second in zip(call(*step.inputs), call(*step.inputs), strict=True):
        assert torch.equal(first, second)


def test_an_optimizer_is_a_part_of_training() -> None:
    with pytest.raises(FoldproofError, match="give training=True, or --training, too"):
        foldproof.audit(linear(), X, optimizer=adam)


def test_an_optimizer_that_takes_no_step_is_told() -> None:
    with pytest.raises(FoldproofError, match="the optimizer takes no step on the model's parameters"):
        foldproof.audit(linear(), X, training=True, optimizer=functools.partial(torch.optim.SGD, lr=-1.0))
