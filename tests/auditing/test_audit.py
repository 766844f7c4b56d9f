"""Real wrong answers of released compilers: each is refuted with the right culprit; correct ones are not."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any

import pytest
import torch
from torch import nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.auditing import api
from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.judge import SAME
from foldproof.auditing.log import Log
from foldproof.compiler_catalog import DECLARED
from tests.proof.models import trained

from .models import WRONG, AddedUp, RoundedDown, right


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of numbers has tests of its own."""
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)


def installed(compiler: str) -> None:
    for package in DECLARED[compiler].packages:
        pytest.importorskip(package)


@functools.cache
def audited(name: str) -> foldproof.Audit:
    case = WRONG[name]
    model, inputs = case.build()
    return foldproof.audit(model, inputs, compiler=case.compiler, options=case.options, locate=False)


@pytest.mark.parametrize("name", WRONG)
def test_the_culprit_is_named(name: str) -> None:
    installed(WRONG[name].compiler)
    if WRONG[name].is_fixed:
        pytest.skip(f"fixed in torch {WRONG[name].fixed}")
    found = audited(name)
    assert {step.name for step in found.refuted} == {WRONG[name].culprit}
    assert found.kind is Kind.REFUTED
    assert found.refuted[0].verdict.counterexample is not None
    assert WRONG[name].culprit in found.conclusion
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.REFUTED


def test_the_place_in_the_model_is_told() -> None:
    """Operators that are read as others keep their source lines."""
    installed("executorch")
    (step,) = audited("executorch: conv, ReLU, Hardtanh").refuted
    assert step.source == "module 1"


@pytest.mark.parametrize("name", [name for name in WRONG if not name.startswith("torchao")])
def test_all_other_steps_are_proved(name: str) -> None:
    installed(WRONG[name].compiler)
    if WRONG[name].is_fixed:
        pytest.skip(f"fixed in torch {WRONG[name].fixed}")
    others = [step for step in audited(name).steps if step.fired and step.name != WRONG[name].culprit]
    assert {step.verdict.kind for step in others} <= {Kind.PROVED}


@pytest.mark.parametrize("name", [name for name in WRONG if not name.startswith("torchao")])
def test_without_the_culprit_all_is_well(name: str) -> None:
    case = WRONG[name]
    installed(case.compiler)
    model, inputs = case.build()
    found = foldproof.audit(
        model, inputs, compiler=case.compiler, options=case.options, disable=[case.culprit], locate=False
    )
    assert not found.refuted
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.ROUNDING


def test_a_wrong_lowering_is_named() -> None:
    """The loops are refuted, and the one pattern whose lowering is wrong can be left out."""
    torch.manual_seed(0)
    model, inputs = trained(RoundedDown()), (torch.randn(2, 3, 4, 4),)
    found = foldproof.audit(model, inputs, compiler="inductor", options={"freezing": True}, locate=False)
    assert [step.name for step in found.refuted] == ["lowering"]
    assert found.lowering == "mkldnn_fusion.fn"
    assert found.conclusion.startswith("wrong: the lowering changes the meaning of the model in the loop that computes")
    assert "audit without it: --disable mkldnn_fusion.fn" in found.conclusion


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("inductor", {}),
        ("inductor", {"freezing": True}),
        ("executorch", {}),
        ("fx", {}),
        ("torchao", {"quantizer": "none"}),
        ("torch.ao", {}),
        ("onnx", {}),
        ("openvino", {}),
    ],
)
def test_right_compilations_are_proved(compiler: str, options: dict[str, Any]) -> None:
    installed(compiler)
    model, inputs = right()
    found = foldproof.audit(model, inputs, compiler=compiler, options=options, locate=False)
    fired = [step for step in found.steps if step.fired]
    assert fired, "no pass did anything, so nothing was tried"
    assert {step.verdict.kind for step in fired} == {Kind.PROVED}, str(found)
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.ROUNDING
    below = ", the lowering and the scheduling are" if compiler == "inductor" else " is"
    assert f"every graph pass{below} proved" in found.conclusion


def test_folds_of_an_untrained_model_are_proved_for_all_parameters() -> None:
    """Its biases are all zero, so that each new one equals some old one by chance."""
    installed("executorch")
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    found = foldproof.audit(nn.Sequential(*layers).eval(), [torch.randn(2, 3, 8, 8)], compiler="executorch")
    fold, partition = (next(s for s in found.steps if s.name == n) for n in ("FuseBatchNormPass", "partition"))
    assert fold.verdict.kind is Kind.PROVED
    assert str(fold.verdict.claim).startswith("all inputs and all parameters"), str(fold.verdict)
    assert partition.verdict.reason == SAME.reason, "what is handed to a backend is read as the graph it was made of"


def test_decomposed_activations_are_proved() -> None:
    """Inductor writes each as arithmetic, or as a choice between its pieces."""
    pieces = (nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.LeakyReLU(), nn.ELU(), nn.PReLU(), nn.Hardswish(), nn.Mish())
    layers = [layer for piece in pieces for layer in (nn.Linear(6, 6), piece)]
    found = foldproof.audit(nn.Sequential(*layers).eval(), [torch.randn(4, 6)], locate=False)
    step = next(step for step in found.steps if step.name == "AOTAutograd")
    assert step.verdict.kind is Kind.PROVED, str(step.verdict)
    assert "where they make the same choices" in str(step.verdict.claim)


def test_an_encoder_layer_on_the_fast_path_is_proved() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu").eval()
    found = foldproof.audit(layer, [torch.randn(2, 4, 8)], locate=False)
    assert "_transformer_encoder_layer_fwd" in str(found.steps[-1].change.after.graph)
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}


class Splits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.split([1, 3], 1)
        return first * second


def test_random_numbers_are_those_of_the_model() -> None:
    """Inductor draws other numbers than PyTorch by design, so that nothing would be equal."""
    found = foldproof.audit(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train(), (torch.randn(3, 4),))
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}
    assert found.options == {"fallback_random": True}
    assert "torch.compile with fallback_random" in found.compiled


def test_lists_that_are_written_into_memory_are_followed() -> None:
    """ExecuTorch's operator returns nothing then, and the memory is read."""
    installed("executorch")
    options = {"partitioner": "none"}
    found = foldproof.audit(Splits(), [torch.randn(2, 4)], compiler="executorch", options=options)
    step = next(step for step in found.steps if step.name == "ToOutVarPass")
    assert "split" in str(step.change.after.graph)
    assert step.verdict.kind is Kind.PROVED


class Cached(nn.Module):
    """It computes a constant once, and keeps it as neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        self.cache: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "twice" not in self.cache:
            self.cache["twice"] = self.weight * 2
        return x * self.cache["twice"]


@pytest.mark.parametrize("freezing", [True, False])
def test_tensors_that_are_no_parameters_are_known(freezing: bool) -> None:
    model, x = Cached().eval(), torch.randn(2, 4)
    with torch.no_grad():
        model(x)
    found = foldproof.audit(model, [x], options={"freezing": freezing}, locate=False)
    fired = [step for step in found.steps if step.fired]
    assert fired and {step.verdict.kind for step in fired} == {Kind.PROVED}, str(found)


def test_a_difference_below_the_graph_is_traced() -> None:
    """As in PyTorch #179574, and small: the mean over an embedding is added up in another order."""
    torch.manual_seed(0)
    model, inputs = AddedUp().eval(), [torch.randint(100, (4, 64))]
    found = foldproof.audit(model, inputs, disable=["reorder_for_locality"])
    assert "reorder_for_locality" not in {step.name for step in found.steps if step.fired}
    assert found.kind is Kind.ROUNDING
    assert found.end_to_end is not None and "compiling mean" in found.end_to_end.found
    first = found.end_to_end.sources[0]
    assert first.operator == "aten.mean.dim" and first.measured
    assert first.share is not None and first.share > 0.9
    assert "every graph pass, the lowering and the scheduling are proved" in found.conclusion
    assert "the text of the kernels" in found.conclusion and "aten.mean.dim" in found.conclusion


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("inductor", {}),
        ("inductor", {"freezing": True}),
        ("executorch", {}),
        ("fx", {}),
        ("torchao", {"quantizer": "none"}),
        ("onnx", {}),
        ("openvino", {}),
    ],
)
def test_a_tap_changes_nothing(compiler: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled program gives the same bits with the tap and without it."""
    installed(compiler)
    model, inputs = right()
    chosen = find_compiler(compiler)
    with torch.no_grad():
        watched = chosen.compile(model, inputs, {}, options, Log()).call(*inputs)
        module = sys.modules[type(chosen).__module__]
        for tap in [name for name in vars(module) if name.startswith("tap_")]:
            monkeypatch.setattr(module, tap, lambda *_: contextlib.nullcontext())
        plain = chosen.compile(model, inputs, {}, options, Log()).call(*inputs)
    assert torch.equal(torch.utils._pytree.tree_leaves(watched)[0], torch.utils._pytree.tree_leaves(plain)[0])


def test_mistakes_are_told() -> None:
    model, inputs = right()
    with pytest.raises(FoldproofError, match="compiler must be one of"):
        foldproof.audit(model, inputs, compiler="gcc")
    with pytest.raises(FoldproofError, match="no option 'quantize'"):
        foldproof.audit(model, inputs, compiler="fx", options={"quantize": 1})
    with pytest.raises(FoldproofError, match="no such setting"):
        foldproof.audit(model, inputs, options={"freezin": True})
    with pytest.raises(FoldproofError, match=r"^freezing is True or False, not 'false'$"):
        foldproof.audit(model, inputs, options={"freezing": "false"})
    with pytest.raises(FoldproofError, match=r"^post_grad_fusion_options is a dict, not True$"):
        foldproof.audit(model, inputs, options={"post_grad_fusion_options": True})
    with pytest.raises(FoldproofError, match=r"^max_fusion_size is a number, not 'few'$"):
        foldproof.audit(model, inputs, options={"max_fusion_size": "few"})
    with pytest.raises(FoldproofError, match="inductor ran no pass 'reorder' that can be left out.* remove_noop_ops"):
        foldproof.audit(model, inputs, disable=["reorder"])
    with pytest.raises(FoldproofError, match=r"^the model does not run on its inputs \(RuntimeError: .*\)$"):
        foldproof.audit(model, [torch.randn(2, 3)], compiler="fx")
    with pytest.raises(FoldproofError, match=r"^options are a mapping from names to values, not a list$"):
        foldproof.audit(model, inputs, options=["freezing"])  # type: ignore[arg-type]
    with pytest.raises(FoldproofError, match=r"not a function"):
        foldproof.audit(lambda x: x, inputs)


def test_quantization_aware_training_is_asked_for_or_not() -> None:
    installed("torchao")
    model, inputs = right()
    with pytest.raises(FoldproofError, match=r"^qat is True or False, not 'maybe'$"):
        foldproof.audit(model, inputs, compiler="torchao", options={"qat": "maybe"})


def test_no_partitioner_is_none() -> None:
    installed("executorch")
    model, inputs = right()
    found = foldproof.audit(model, inputs, compiler="executorch", options={"partitioner": None})
    assert found.kind is not Kind.REFUTED
    assert not any("Xnnpack" in step.phase for step in found.steps)


def test_one_name_is_left_out_by_itself() -> None:
    model, inputs = right()
    assert not [s for s in foldproof.audit(model, inputs, compiler="fx", disable="fuse").steps if s.fired]


class Counted(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + 1


def test_that_the_model_runs_is_tried_on_copies() -> None:
    model, x = Counted().eval(), torch.randn(4, 3, requires_grad=True) * 1
    api._Subject.prepare(find_compiler("fx"), model, (x,), {}, False, None)
    assert model.calls == 0


def test_a_pass_that_fails_is_named() -> None:
    """torchao 0.18 takes the first axis of a grouped transposed weight for the outputs, whatever the quantizer."""
    installed("torchao")
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)).eval()
    with pytest.raises(FoldproofError, match=r"--disable _fuse_conv_bn_ leaves out the pass that failed$"):
        foldproof.audit(model, [torch.randn(1, 4, 4, 4)], compiler="torchao")


def test_quantization_aware_training_is_not_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export leaves a counter of batches behind, which goes with the fold."""
    installed("torchao")
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
    found = foldproof.audit(model, (torch.randn(2, 3, 6, 6),), compiler="torchao", options={"qat": True}, locate=False)
    (fold,) = (step for step in found.steps if step.name == "_fold_conv_bn_qat")
    assert fold.fired and not found.refuted, found.conclusion
    assert any("counts in 1.num_batches_tracked" in note for note in fold.verdict.notes), str(fold.verdict)
