"""Folds that somebody else made are proved for all inputs, and wrong ones are not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import foldproof
from foldproof import Kind


class Net(nn.Module):
    """A convolution and a linear, each with its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.fc, self.bn2 = nn.Linear(8, 4), nn.BatchNorm1d(4)
        for one in (self.bn, self.bn2):
            assert one.running_mean is not None and one.running_var is not None
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 2)
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.fc(self.bn(self.conv(x)).relu().mean((2, 3))))
        return out


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def folded(model: Net) -> nn.Module:
    """Fold both by PyTorch's own functions."""
    out = copy.deepcopy(model)
    out.conv, out.fc = fuse_conv_bn_eval(out.conv, out.bn), fuse_linear_bn_eval(out.fc, out.bn2)  # type: ignore[assignment]
    out.bn = out.bn2 = nn.Identity()  # type: ignore[assignment]
    return out


def by_hand(model: Net) -> Callable[[Tensor], Tensor]:
    """Fold both as in a program without modules, with names of its own."""
    assert model.bn.running_var is not None and model.bn.running_mean is not None
    scale = model.bn.weight / torch.sqrt(model.bn.running_var + model.bn.eps)

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter((model.conv.weight * scale.view(-1, 1, 1, 1)).detach())
            self.register_buffer("shift", (model.bn.bias - model.bn.running_mean * scale).detach())
            self.fc, self.bn2 = model.fc, model.bn2

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn2(self.fc(torch.conv2d(x, self.kernel, self.shift).relu().mean((2, 3))))
            return out

    return Folded().eval()


@pytest.mark.parametrize("fold", [folded, by_hand])
def test_a_right_fold_is_proved(fold: Callable[[Net], nn.Module]) -> None:
    model = Net().eval()
    verdict = foldproof.prove(model, fold(model), (X,))
    assert verdict.kind is Kind.PROVED, verdict
    assert str(verdict.claim).startswith("all inputs, for these parameter values; the second program's new parameters")
    assert any("as a fold of the first program computes them" in note for note in verdict.notes)


def test_exported_programs_and_half_precision() -> None:
    model = Net().eval().to(torch.bfloat16)
    program = torch.export.export(model, (X.bfloat16(),))
    assert foldproof.prove(program, folded(model), (X.bfloat16(),)).kind is Kind.PROVED


def test_a_wrong_fold_is_told() -> None:
    model = Net().eval()
    wrong = folded(model)
    with torch.no_grad():
        wrong.conv.weight[0] *= 1.001
    verdict = foldproof.prove(model, wrong, (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert any(note.startswith("conv.weight is near to a fold") for note in verdict.notes), verdict.notes


def test_a_fold_that_is_right_by_chance_is_proved_for_these_values() -> None:
    """One that forgets the shift of a BatchNorm gives the same parameters where the shift is 0."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    verdict = foldproof.prove(model, nn.Sequential(fuse_conv_bn_eval(model[0], model[1])), (X,))
    assert verdict.kind is Kind.PROVED
    assert verdict.claim is not None and not verdict.claim.all_parameters and not verdict.claim.is_general


def test_a_fold_with_another_epsilon_is_not_proved() -> None:
    model = Net().eval()
    other = copy.deepcopy(model)
    other.bn.eps = 1e-3
    verdict = foldproof.prove(model, folded(other), (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


def test_swapped_biases_are_refuted() -> None:
    model = Net().eval()
    wrong = folded(model)
    with torch.no_grad():
        wrong.fc.bias.copy_(wrong.fc.bias.flip(0))
    assert foldproof.prove(model, wrong, (X,)).kind is Kind.REFUTED
