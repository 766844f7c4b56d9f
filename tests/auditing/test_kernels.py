"""A generated kernel that is wrong is named, with the loop that it was generated from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.auditing import replay
from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.fault import WrongNumbers
from foldproof.auditing.kernels import WrongKernel, find_wrong_kernel
from foldproof.auditing.log import Log
from foldproof.auditing.reduce import reduce_fault


def check(model: nn.Module, *inputs: Tensor) -> WrongKernel | None:
    log = Log()
    with torch.no_grad():
        compiled = find_compiler("inductor").compile(model.eval(), tuple(x.clone() for x in inputs), {}, {}, log)
        assert log.generated
        return find_wrong_kernel(log.generated, lambda: compiled.call(*(x.clone() for x in inputs)))


class Least(nn.Module):
    """Torch 2.13 begins the vectors of this minimum with 0, where rows are reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(y).relu() + (x.amin(1).float() + 1).sin(), x.amin(0)


LEAST = torch.randint(100, 255, (64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_wrong_kernel() -> None:
    found = check(Least(), LEAST, torch.randn(64, 64))
    assert found is not None and "amin" in found.loop.origins and found.kernel.startswith("cpp_fused_")
    assert "at tests/auditing/test_kernels.py:" in str(found)
    assert "minimum" in found.code
    with_zeros = LEAST.clone()
    with_zeros[:, 0] = 0
    assert check(Least(), with_zeros, torch.randn(64, 64)) is None


class Right(nn.Module):
    """Written inputs, parts of a concatenation, memory used again, and reductions in several shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv, self.norm = nn.Linear(16, 16), nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x.mul_(2)
        y = torch.cat([x.softmax(-1), self.linear(x).relu()], -1)
        z = self.norm(self.conv(x)).transpose(1, 2).cumsum(1)
        return y, z.amax((0, 2)), x.var(-1), y.argmax(-1), (y @ y.mT).tanh().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_kernels(dtype: torch.dtype) -> None:
    assert check(Right().to(dtype), torch.randn(2, 4, 16).to(dtype)) is None


class Cancelling(nn.Module):
    """Rounding moves each of these numbers by more than a few roundings of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x - x.flip(1)).sum(1),
        lambda x: (x - x.mean(1, keepdim=True)).sum(1) > 0,
        lambda x: 1 / (x - x.flip(1)).sum(1),
        lambda x: torch.log(1 - torch.tanh(x.abs() * 4)),
    ],
)
def test_right_kernels_whose_numbers_cancel(function: Callable[[Tensor], Tensor]) -> None:
    assert check(Cancelling(function), torch.randn(64, 300)) is None


def test_numbers_that_cancel_are_no_wrong_numbers() -> None:
    fault = WrongNumbers(find_compiler("inductor"), {})
    x = torch.randn(64, 300) * 1000
    assert reduce_fault(fault, Cancelling(lambda x: (x - x.flip(1)).sum(1)).eval(), (x,)) is None
    assert reduce_fault(fault, Row().eval(), (LEAST,)) is not None


class Row(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.amin(1).float() + 1).sin()


def test_an_audit_names_the_kernel_and_saves_a_small_program(tmp_path: Path) -> None:
    found = foldproof.audit(Row().eval(), (LEAST,), locate=False)
    assert found.conclusion.startswith("wrong below the loops: every graph pass, the lowering and the scheduling")
    assert "(from amin)" in found.conclusion
    saved = found.save(tmp_path)
    assert json.loads((saved / "verdict.json").read_text())["kernel"]["origins"] == ["amin"]
    assert len((saved / "repro.py").read_text().splitlines()) == 7
    report = (saved / "report.md").read_text()
    assert "```cpp" in report and "min(arg0_1[64*p0 + p1])" in report
    assert replay(saved)[0]
