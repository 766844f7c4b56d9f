"""Audits with gradients: joint graphs, their halves, and the numbers of a step; each compiles a model with Inductor."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.auditing import api, replay
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.fault import WrongGradients
from foldproof.auditing.folder import run
from foldproof.auditing.gradients import PARTS, TrainedCall
from foldproof.auditing.loops import LOOP_STEPS
from foldproof.auditing.script import write_reproduction
from foldproof.auditing.specification import specify_model


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of numbers has tests of its own."""
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)


class Loss(nn.Module):
    """A model that returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 7)

    def forward(self, tokens: Tensor, targets: Tensor) -> Any:
        return F.cross_entropy(self.head(F.gelu(self.norm(self.embed(tokens)))), targets)


def normed() -> nn.Module:
    """A batch normalization that writes to its buffers, behind a bias whose gradient is 0 but for rounding."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


CASES = {
    "a loss": (Loss, (torch.tensor([1, 5, 2]), torch.tensor([0, 1, 6]))),
    "buffers": (normed, (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),)),
}


@functools.cache
def audited(name: str) -> foldproof.Audit:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    return foldproof.audit(make().train(), inputs, training=True, locate=False)


@pytest.mark.parametrize("name", CASES)
def test_right_steps_are_proved(name: str) -> None:
    found = audited(name)
    fired = [step for step in found.steps if step.fired]
    assert {step.verdict.kind for step in fired} <= {Kind.PROVED, Kind.PROVED_WITHIN}, str(found)
    names = {(step.part, step.name) for step in found.steps}
    assert names >= {("", "AOTAutograd"), ("", "partition"), *((part, name) for part in PARTS for name in LOOP_STEPS)}
    assert found.end_to_end is not None and found.end_to_end.kind is Kind.ROUNDING, found.end_to_end
    assert "the lowering and the scheduling are proved" in found.conclusion


def test_proofs_are_for_any_loss() -> None:
    """Cotangents are inputs of the graphs, and each is varied."""
    step = next(s for s in audited("buffers").steps if s.name == "AOTAutograd")
    assert step.verdict.proof is not None and step.verdict.claim is not None
    assert [tuple(node.meta["val"].shape) for node in step.change.after.placeholders] == [(6, 4), (6, 3)]
    assert step.verdict.claim.all_parameters and step.verdict.claim.all_inputs


def test_the_loss_is_told() -> None:
    for name, told in (("a loss", "the loss is the model's output"), ("buffers", "times fixed random numbers")):
        whole = audited(name).end_to_end
        assert whole is not None and any(told in note for note in whole.verdict.notes)


def test_gradients_and_buffers_are_compared() -> None:
    whole = audited("buffers").end_to_end
    assert whole is not None
    names = [one.name for one in whole.outputs]
    assert {"output 0", "the gradient of 0.weight", "buffer 1.running_mean after the call"} <= {*names}


def test_a_wrong_gradient_is_refuted_end_to_end() -> None:
    """The compiled step is that of a model whose backward has another factor."""
    torch.manual_seed(0)
    model, x = normed(), CASES["buffers"][1]
    step = TrainedCall(model, x, {})

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: Tensor) -> Tensor:
            return h.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * g

    reference = step.trace(model)
    for function, kind in ((lambda h: h, Kind.ROUNDING), (Doubled.apply, Kind.REFUTED)):
        candidate = step.run(lambda x, f=function: f(model(x)), model)
        found = step.name(foldproof.compare(reference, candidate, step.inputs, trials=2, locate=False))
        assert found.kind is kind, found
    shown = found.verdict.counterexample
    assert shown is not None and shown.name is not None and shown.name.startswith("the gradient of")


def test_a_gradient_that_is_missing_is_refuted_end_to_end() -> None:
    model, x = normed(), CASES["buffers"][1]
    step = TrainedCall(model, x, {})
    candidate = step.run(lambda x: model[1:](model[0](x).detach()), model)
    found = step.name(foldproof.compare(step.trace(model), candidate, step.inputs, trials=2, locate=False))
    assert found.kind is Kind.REFUTED and "the list of gradients" in found.verdict.reason, found


def test_compilers_without_gradients_are_refused() -> None:
    with pytest.raises(FoldproofError, match="fx compiles no gradients"):
        foldproof.audit(normed(), CASES["buffers"][1], compiler="fx", training=True)


def test_models_without_gradients_are_refused() -> None:
    with pytest.raises(FoldproofError, match="computes no gradients"):
        foldproof.audit(normed().requires_grad_(False), CASES["buffers"][1], training=True)


def test_compiled_autograd_is_told() -> None:
    call = TrainedCall(nn.Linear(3, 2), (torch.randn(5, 3),), {})
    assert not any("compiled autograd" in remark for remark in call.remarks)
    with torch._dynamo.config.patch(compiled_autograd=True):  # pytest would delete the setting behind the test
        assert any("compiled autograd is on" in remark for remark in call.remarks)


class Counting(nn.Module):
    """A buffer that is written, and then a factor of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("scale", torch.tensor([0.5, 1.5, 2.0]))

    def forward(self, x: Tensor) -> Any:
        self.scale.add_(1.0)
        return torch.tanh(self.linear(x)) * self.scale


def test_a_backward_that_computes_a_written_buffer_again_is_refuted_and_saved(tmp_path: Path) -> None:
    """The partitioner of torch 2.13 adds 1 once more in the backward, to the buffer that the forward has written."""
    torch.manual_seed(0)
    found = foldproof.audit(Counting(), (torch.randn(3, 3),), training=True, locate=False)
    if not found.refuted:
        pytest.skip("fixed in this release")
    assert [step.title for step in found.refuted] == ["partition"], found
    assert found.end_to_end is not None and found.end_to_end.kind is Kind.REFUTED
    assert "wrong: the pass partition changes the meaning of the model" in found.conclusion
    saved = found.save(tmp_path / "saved")
    text = (saved / "repro.py").read_text()
    assert len(text.splitlines()) <= 20 and "foldproof" not in text and "Linear" not in text, text
    assert text.rstrip() in (saved / "report.md").read_text()
    wrong, told = replay(saved)
    assert wrong, told


TRAINED: dict[str, nn.Module] = {
    "batch statistics": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GELU()),
    "evaluation mode": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(),
    "a loss": nn.Sequential(nn.Linear(3, 4), nn.Flatten(0), nn.Linear(20, 1)),
    "dropout": nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_right_gradients_show_no_fault(name: str, tmp_path: Path) -> None:
    fault = WrongGradients(Inductor(), {}, TRAINED[name].training)
    spec, *_ = specify_model(TRAINED[name], (torch.randn(5, 3),))
    assert not fault.is_shown_by(spec)
    written = replace(spec, held=None, given=None)
    (tmp_path / "repro.py").write_text(write_reproduction(fault, written))
    ran = run(tmp_path / "repro.py")
    assert not ran.failed, ran.told
    assert ran.wrong == (name == "dropout"), ran.told  # draws are others, which is why none shows a fault
