"""Products whose operands PyTorch rounds first: by the settings of the device that they are on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.rounding import operands
from foldproof.rounding.operands import rounded_as_set
from foldproof.verdict import Kind

aten = torch.ops.aten
backends: Any = torch.backends


@pytest.fixture
def settings() -> Iterator[None]:
    """Put the settings back, which are those of the whole process."""
    places = (backends, backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [(place, place.fp32_precision) for place in places]
    yield
    for place, precision in before:
        place.fp32_precision = precision


def errors(*devices: str) -> tuple[float, float] | None:
    """The errors of the number 1.0 on the CPU, as an operand of a matrix product and of a convolution."""
    found, one = rounded_as_set(devices), torch.ones((), dtype=torch.float64)
    return found and (float(found(aten.mm.default, one)), float(found(aten.convolution.default, one)))


def test_cuda_rounds_operands_of_convolutions_unless_told_otherwise(settings: None) -> None:
    assert operands._setting("cuda", True) == "tf32" and operands._setting("cuda", False) == "none"
    backends.cudnn.conv.fp32_precision = "ieee"
    assert rounded_as_set(["cuda"]) is None
    backends.cuda.matmul.fp32_precision = "tf32"
    assert rounded_as_set(["cuda"]) is not None


def test_other_devices_do_as_they_are_set(settings: None) -> None:
    assert errors("cpu") is None and errors("cpu", "cuda") == (0.0, 0.0)
    backends.mkldnn.matmul.fp32_precision = "bf16"
    assert errors("cpu", "cuda") == (2.0**-8, 0.0)
    backends.mkldnn.conv.fp32_precision = "tf32"
    assert errors("cpu") == (2.0**-8, 2.0**-11) and errors() is None


def test_a_setting_of_all_is_one_of_each(settings: None) -> None:
    backends.fp32_precision = "tf32"
    assert errors("cpu") == (2.0**-11, 2.0**-11)


def to_tf32(x: Tensor) -> Tensor:
    """``x`` with the 10 bits of fraction that NVIDIA's tensor cores take, to nearest."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class TensorCores(torch.utils._python_dispatch.TorchDispatchMode):
    """Rounds the operands of products to TF32, as a GPU does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.convolution.default, aten.addmm.default):
            args = tuple(to_tf32(x.contiguous()) if isinstance(x, Tensor) and x.dim() > 1 else x for x in args)
        return func(*args, **(kwargs or {}))


def on_tensor_cores(model: nn.Module) -> Any:
    def run(x: Tensor) -> Any:
        with TensorCores():
            return model(x)

    return run


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU has the settings that CUDA has by default."""
    monkeypatch.setattr(operands, "_setting", lambda device, convolves: "tf32" if convolves else "none")


def test_a_right_network_of_convolutions_is_not_refuted(gpu: None) -> None:
    model, x = convolutions(), torch.randn(2, 8, 12, 12)
    found = foldproof.compare(model, on_tensor_cores(model), (x,), trials=3, locate=False)
    assert found.kind is Kind.ROUNDING and any("fp32_precision" in note for note in found.verdict.notes)


def test_on_the_cpu_it_is(settings: None) -> None:
    model, x = convolutions(), torch.randn(2, 8, 12, 12)
    assert foldproof.compare(model, on_tensor_cores(model), (x,), trials=3, locate=False).kind is Kind.REFUTED


def test_the_setting_of_convolutions_allows_linear_layers_nothing(gpu: None) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(16, 64)
    assert foldproof.compare(model, on_tensor_cores(model), (x,), trials=3, locate=False).kind is Kind.REFUTED


def test_a_wrong_convolution_is_refuted(gpu: None) -> None:
    model, other, x = convolutions(), convolutions(), torch.randn(2, 8, 12, 12)
    other[0].weight.data[0] *= 1.05
    assert foldproof.compare(model, on_tensor_cores(other), (x,), trials=3, locate=False).kind is Kind.REFUTED
