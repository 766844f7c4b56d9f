"""Audits of torch.onnx.export and ONNX Runtime: the translation, onnxscript's passes, ONNX Runtime's optimizations."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.auditing.taps import onnx as tap
from foldproof.auditing.taps.onnx_runtime import Optimized, find_needed
from foldproof.errors import FoldproofError
from foldproof.onnx_graph import DEFINITIONS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

X = torch.randn(2, 3, 8, 8)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
    )
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return net.eval()


def names(found: foldproof.AuditResult) -> list[str]:
    return [step.name for step in found.steps if step.change.fired]


def test_each_stage_is_proved() -> None:
    found = foldproof.audit(convolutions(), (X,), compiler="onnx", locate=False)
    assert all(step.verdict.kind is Kind.PROVED for step in found.steps), str(found)
    assert {tap.TRANSLATION, "FoldConstantsPass", "ORT_ENABLE_EXTENDED"} <= {*names(found)}
    assert any("FuseBatchNormIntoConv" in name for name in names(found))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.heads(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(x)))


def test_a_transformer_is_proved() -> None:
    torch.manual_seed(0)
    found = foldproof.audit(Attention().eval(), (torch.randn(2, 5, 16),), compiler="onnx", locate=False)
    kinds = {step.verdict.kind for step in found.steps}
    assert kinds <= {Kind.PROVED, Kind.PROVED_WITHIN}, str(found)  # the scale of attention is rounded


class Nested(nn.Module):
    """A linear of one tensor in a dictionary, and differences of others, which have to come in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: dict[str, Tensor], *, first: Tensor, rest: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.linear(x["b"]) - x["a"], first - 2 * rest[0] - 3 * rest[1]


@pytest.mark.parametrize("compiler", ["onnx", "openvino"])
def test_inputs_may_be_nested_and_have_names(compiler: str) -> None:
    pytest.importorskip("openvino" if compiler == "openvino" else "onnxruntime")
    kwargs = {"rest": [torch.randn(3), torch.randn(3)], "first": torch.randn(3)}
    given = {"b": torch.randn(2, 4), "a": torch.randn(2, 4)}
    found = foldproof.audit(Nested().eval(), (given,), kwargs, compiler=compiler, locate=False)
    assert {step.verdict.kind for step in found.steps} == {Kind.PROVED}, str(found)
    assert found.kind is Kind.ROUNDING


def test_a_wrong_rule_of_onnxscript_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxscript.rewriter.rules.common import _fuse_batchnorm as rules

    original = rules._FuseBatchNormBase._scale_weights

    def scale_weights(self: Any, weights: Any, scale: Any, attributes: Any) -> Any:
        return original(self, weights, scale * 1.01, attributes)

    monkeypatch.setattr(rules._FuseBatchNormBase, "_scale_weights", scale_weights)
    found = foldproof.audit(convolutions(), (X,), compiler="onnx", locate=False)
    assert [step.name for step in found.refuted] == ["RemoveOptionalBiasFromConv, FuseBatchNormIntoConv"]


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path], None]) -> None:
    """Let the optimizer of convolutions with activations be wrong: ``fault`` changes what ONNX Runtime makes."""
    original = tap.optimize

    def wrong(path: Path, level: Any, without: Collection[str] = ()) -> Optimized:
        found = original(path, level, without)
        if "ConvActivationFusion" in found.optimizers:
            fault(found.path)
        return found

    monkeypatch.setattr(tap, "optimize", wrong)


def change_activation(path: Path) -> None:
    model = onnx.load(str(path))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "activation":
                attribute.s = b"Sigmoid"
    onnx.save(model, str(path))


def test_a_wrong_optimizer_of_the_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, change_activation)
    found = foldproof.audit(convolutions(), (X,), compiler="onnx", locate=False)
    assert "ORT_ENABLE_EXTENDED" in [step.name for step in found.refuted], str(found)
    verdict = next(step.verdict for step in found.refuted)
    assert verdict.difference is not None and "fused_conv" in str(verdict.difference)
    wrong = "wrong: the optimizer ConvActivationFusion in ORT_ENABLE_EXTENDED changes the meaning of the model"
    assert found.conclusion.startswith(wrong), found.conclusion
    assert found.conclusion.endswith("audit without it: --disable ConvActivationFusion")
    without = foldproof.audit(convolutions(), (X,), compiler="onnx", disable="ConvActivationFusion", locate=False)
    assert not without.refuted and without.end_to_end is not None, str(without)


def test_a_failing_optimizer_of_the_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("no kernel")

    plant(monkeypatch, fail)
    found = foldproof.audit(convolutions(), (X,), compiler="onnx", locate=False)
    assert found.conclusion.startswith("crash: "), found.conclusion
    assert "--disable ConvActivationFusion leaves out the pass that failed" in found.conclusion
    assert "ORT_ENABLE_BASIC" in names(found)


def test_an_optimizer_that_is_not_there_is_told() -> None:
    with pytest.raises(
        FoldproofError, match=r"onnx ran no pass 'Fusion' that can be left out; those that can: ConvActiv"
    ):
        foldproof.audit(convolutions(), (X,), compiler="onnx", disable="Fusion", locate=False)


def test_a_smallest_wrong_part_is_found() -> None:
    names = [*"abcdefg"]
    assert find_needed(names, lambda without: not {"b", "f"} & without) == ("b", "f")
    assert find_needed(names, lambda without: "g" not in without) == ("g",)
    assert find_needed(names, lambda without: True) == ()
    assert find_needed(names, lambda without: False) == ()


def test_an_operator_without_a_definition_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DEFINITIONS, ("", "GridSample"))

    class Sampled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.grid_sample(x, x.movedim(1, -1)[..., :2])

    found = foldproof.audit(Sampled(), (X,), compiler="onnx", locate=False)
    told = [step.verdict.reason for step in found.steps if step.verdict.kind is Kind.UNDECIDED]
    assert told and "(GridSample): the operator has no definition" in told[0], str(found)


def test_normalisations_in_padded_blocks_of_channels_are_folds() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).eval()
    nn.init.uniform_(net[3].weight, 0.5, 2)
    nn.init.normal_(net[3].running_mean)
    found = foldproof.audit(net, (X,), compiler="onnx", locate=False)
    assert all(step.verdict.kind is Kind.PROVED for step in found.steps), str(found)


def test_a_file_that_is_not_what_was_made_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldproof.comparison import runtimes

    original = runtimes.export_onnx

    def wrong(module: nn.Module, args: tuple[Any, ...], path: Path, kwargs: dict[str, Any]) -> Path:
        original(module, args, path, kwargs)
        model = onnx.load(str(path))
        (held,) = (t for t in model.graph.initializer if list(t.dims) == [4, 8, 1, 1])
        numbers = onnx.numpy_helper.to_array(held).copy()
        numbers[0, 0] += 0.1
        held.CopyFrom(onnx.numpy_helper.from_array(numbers, held.name))
        onnx.save(model, str(path))
        return path

    monkeypatch.setattr(runtimes, "export_onnx", wrong)
    found = foldproof.audit(convolutions(), (X,), compiler="onnx", locate=False)
    assert [step.name for step in found.refuted] == [tap.SAVING], str(found)
