"""Values of the candidate along the depth: those that stand for something else are left out, errors are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind

X = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        for norm in (self.norm, self.last):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x)).relu()))


@pytest.fixture(scope="module")
def folded() -> torch.export.ExportedProgram:
    program = foldproof.fuse(Net().eval(), X).program
    assert isinstance(program, torch.export.ExportedProgram)
    return program


def test_a_folded_convolution_is_not_far_from_itself(folded: torch.export.ExportedProgram) -> None:
    result = foldproof.compare(Net().eval(), folded, X, trials=4)
    assert result.kind is Kind.ROUNDING
    told = {layer.node: layer.candidate for layer in result.layers}
    assert told["conv2d"] is None and told["conv2d_1"] is None
    assert all(layer.candidate is None or layer.candidate < 1e-4 * layer.size for layer in result.layers)


def test_an_error_stays(folded: torch.export.ExportedProgram) -> None:
    wrong = Net().eval()
    wrong.second.weight.data[0] *= 1.5
    result = foldproof.compare(Net().eval(), torch.export.export(wrong, X), X, trials=4)
    assert result.kind is Kind.REFUTED
    far = {
        layer.node: layer.candidate
        for layer in result.layers
        if layer.candidate and layer.candidate > 0.05 * layer.size
    }
    assert {"conv2d_1", "batch_norm_1"} <= far.keys() and "conv2d" not in far


def test_an_error_after_a_fold_stays(folded: torch.export.ExportedProgram) -> None:
    wrong = Net().eval()
    wrong.last.bias.data += 1
    result = foldproof.compare(wrong, folded, X, trials=4)
    assert result.kind is Kind.REFUTED
    told = {layer.node: layer for layer in result.layers}
    assert told["conv2d_1"].candidate is not None, "its value reaches the output, which is wrong"
