"""Candidates of a comparison: files of other runtimes, saved outputs, compiled code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.errors import FoldproofError, MissingExtra
from foldproof.verdict import Kind


def small() -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 4)).eval(), (torch.randn(8, 16),)


def spoilt(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] += 0.1
    return model


def pte(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    exir = pytest.importorskip("executorch.exir")
    lowered = exir.to_edge_transform_and_lower(torch.export.export(model, inputs)).to_executorch()
    path.write_bytes(lowered.buffer)


def onnx(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(model, inputs, str(path), dynamo=True, verbose=False)


def pt2(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    torch.export.save(torch.export.export(model, inputs), path)


def aoti(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    torch._inductor.aoti_compile_and_package(torch.export.export(model, inputs), package_path=str(path))


def pt(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    torch.save({"out": model(*inputs).detach()}, path)


@pytest.mark.parametrize("make", [pte, onnx, pt2, aoti, pt], ids=lambda make: make.__name__)
def test_files(make: object, tmp_path: Path) -> None:
    assert callable(make)
    model, inputs = small()
    suffix = "pt2" if make is aoti else make.__name__
    right, wrong = tmp_path / f"right.{suffix}", tmp_path / f"wrong.{suffix}"
    make(model, inputs, right)
    make(spoilt(small()[0]), inputs, wrong)
    result = foldproof.compare(model, str(right), inputs, trials=3)
    assert result.kind is Kind.ROUNDING, str(result)
    if make in (pte, onnx):
        assert not result.identical and result.sources and result.sources[0].measured
    assert foldproof.compare(model, wrong, inputs, trials=3).kind is Kind.REFUTED


def test_compiled_modules_and_functions() -> None:
    model, inputs = small()
    torch._dynamo.reset()
    module = foldproof.compare(model, torch.compile(model, backend="aot_eager"), inputs, trials=2)
    assert module.kind is Kind.ROUNDING and module.against == "torch.compile (aot_eager)"
    function = foldproof.compare(model, torch.compile(lambda x: model(x), backend="eager"), inputs, trials=2)
    assert function.identical and function.against == "torch.compile (eager)"


@pytest.mark.parametrize("name", ["broken.pte", "broken.onnx", "broken.pt2", "broken.pt"])
def test_damaged_files(name: str, tmp_path: Path) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(b"not what it says")
    model, inputs = small()
    with pytest.raises(FoldproofError, match=name) as told:
        foldproof.compare(model, tmp_path / name, inputs)
    assert "weights_only" not in str(told.value), "nobody is told to run the code in it"


def test_a_file_that_takes_other_inputs(tmp_path: Path) -> None:
    model, inputs = small()
    onnx(model, inputs, tmp_path / "model.onnx")
    with pytest.raises(FoldproofError, match="takes 1 inputs, and there are 2 tensors"):

        class Two(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return x + y

        foldproof.compare(Two(), tmp_path / "model.onnx", (inputs[0], inputs[0]))


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model, inputs = small()
    with pytest.raises(MissingExtra, match=r"pip install 'onnxruntime"):
        foldproof.compare(model, tmp_path / "model.onnx", inputs)


def test_a_function_that_takes_the_inputs_gives_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text(
        "import numpy\n\n\ndef square(x):\n    return numpy.square(x.numpy())\n\n\n"
        "def make():\n    import torch\n    return torch.nn.Identity(), ()\n"
    )

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    x = torch.randn(4, 4)
    assert foldproof.compare(Square(), f"{path}:square", (x,), trials=2).identical
    assert foldproof.compare(Square(), f"{path}:make", (x,), trials=2).kind is Kind.REFUTED


class Detector(nn.Module):
    """A model with outputs in a dict, whose keys are not in the order of the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.one(x), "boxes": self.two(x if y is None else x - y)}


@pytest.mark.parametrize("make", [pte, onnx], ids=lambda make: make.__name__)
def test_files_keep_the_order_of_a_dict(make: object, tmp_path: Path) -> None:
    assert callable(make)
    inputs, path = (torch.randn(8, 16),), tmp_path / f"detector.{make.__name__}"
    make(Detector().eval(), inputs, path)
    assert foldproof.compare(Detector().eval(), path, inputs, trials=3, locate=False).kind is Kind.ROUNDING


def test_onnx_files_are_matched_by_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, path = Detector().eval(), tmp_path / "detector.onnx"
    x, y = torch.randn(8, 16), torch.randn(8, 16)
    names = ["logits", "boxes"]
    torch.onnx.export(model, (), str(path), kwargs={"y": y, "x": x}, output_names=names, dynamo=True, verbose=False)
    assert foldproof.compare(model, path, (x, y), trials=3, locate=False).kind is Kind.ROUNDING
    assert foldproof.compare(model, path, (y, x), trials=3, locate=False).kind is Kind.ROUNDING


def test_outputs_without_keys_are_in_the_order_of_the_call(tmp_path: Path) -> None:
    model, x = Detector().eval(), torch.randn(8, 16)
    logits, boxes = (model(x)[name].detach() for name in ("logits", "boxes"))
    torch.save([logits, boxes], tmp_path / "outputs.pt")
    assert foldproof.compare(model, tmp_path / "outputs.pt", (x,), locate=False).identical
    assert foldproof.compare(model, {"boxes": boxes, "logits": logits}, (x,), locate=False).identical
    arrays = foldproof.compare(
        model, lambda x: [model(x)[name].detach().numpy() for name in ("logits", "boxes")], (x,), trials=3, locate=False
    )
    assert arrays.identical
    swapped = foldproof.compare(model, [boxes, logits], (x,), locate=False)
    assert swapped.kind is Kind.REFUTED and "agree in another order: its output 1 is" in swapped.verdict.reason


def xml(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(torch.export.export(model, inputs)), path, compress_to_fp16=False)


def script(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.trace(model, inputs).save(str(path))


def npy(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    numpy.save(path, model(*inputs).detach().numpy())


def npz(model: nn.Module, inputs: tuple[Tensor], path: Path) -> None:
    numpy.savez(path, model(*inputs).detach().numpy())


@pytest.mark.parametrize("make", [xml, script, npy, npz], ids=lambda make: make.__name__)
def test_other_files(make: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = small()
    suffix = "pt" if make is script else make.__name__
    right, wrong = tmp_path / f"right.{suffix}", tmp_path / f"wrong.{suffix}"
    make(model, inputs, right)
    make(spoilt(small()[0]), inputs, wrong)
    assert foldproof.compare(model, right, inputs, trials=3).kind is Kind.ROUNDING
    assert foldproof.compare(model, wrong, inputs, trials=3).kind is Kind.REFUTED
    right.write_bytes(b"nonsense")
    with pytest.raises(FoldproofError, match=r"right\."):
        foldproof.compare(model, right, inputs)


def test_another_program_by_its_spec(tmp_path: Path) -> None:
    model, inputs = small()
    other = tmp_path / "other.py"
    other.write_text(
        "from tests.comparison.test_candidates import small, spoilt\n"
        "def wrong(): return spoilt(small()[0]), small()[1]\n"
    )
    assert foldproof.compare(model, f"{other}:wrong", inputs, trials=3).kind is Kind.REFUTED
    assert foldproof.compare(model, "tests.comparison.test_candidates:small", inputs, trials=3).identical


def test_a_session_of_onnx_runtime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, inputs = small()
    onnx(model, inputs, tmp_path / "right.onnx")
    session = runtime.InferenceSession(str(tmp_path / "right.onnx"), providers=["CPUExecutionProvider"])
    assert foldproof.compare(model, session, inputs, trials=3).kind is Kind.ROUNDING


def test_parameters_are_no_outputs() -> None:
    model, inputs = small()
    with pytest.raises(FoldproofError, match="parameters, not outputs"):
        foldproof.compare(model, model.state_dict(), inputs)


def test_outputs_under_other_keys_are_in_the_order_of_the_call_and_told() -> None:
    model, x = Detector().eval(), torch.randn(8, 16)

    def renamed(x: Tensor) -> dict[str, Tensor]:
        out = model(x)
        return {"z": out["logits"], "a": out["boxes"]}

    def swapped(x: Tensor) -> dict[str, Tensor]:
        out = model(x)
        return {"a": out["boxes"], "z": out["logits"]}

    right, wrong = (foldproof.compare(model, one, (x,), trials=3, locate=False) for one in (renamed, swapped))
    assert right.kind is Kind.ROUNDING and wrong.kind is Kind.REFUTED
    assert all(any("other keys" in note for note in found.verdict.notes) for found in (right, wrong))
