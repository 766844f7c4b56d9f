"""Products whose operands PyTorch rounds first: by the settings of the device that they are on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.rounding import operands
from foldproof.verdict import Kind

from .settings import CHECKS

aten = torch.ops.aten


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_settings(check: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rounding.settings", check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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


def test_on_the_cpu_it_is() -> None:
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
