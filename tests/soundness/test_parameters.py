"""Parameters: a pass is right for all of them, of either sign, however the model has them now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind

from .programs import normal

X = normal(3, 4)


class Scaled(nn.Module):
    """A linear layer whose outputs are scaled: all scales are positive here, as those of a fresh BatchNorm are."""

    def __init__(self, as_buffer: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        gamma = torch.rand(4) + 0.5
        self.fold: Callable[[Tensor], Tensor] | None = None
        if as_buffer:
            self.register_buffer("gamma", gamma)
        else:
            self.gamma = nn.Parameter(gamma)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y if self.fold is not None else y * self.gamma


def folding(read: Callable[[Tensor], Tensor]) -> Callable[[Scaled], None]:
    @torch.no_grad()
    def fold(model: Scaled) -> None:
        scale = read(model.gamma)
        model.linear.weight.copy_(model.linear.weight * scale[:, None])
        model.linear.bias.copy_(model.linear.bias * scale)
        model.fold = read

    return fold


WRONG_FOR_NEGATIVE_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "clamp": lambda g: g.clamp(min=0),
    "clamp to an epsilon": lambda g: g.clamp(min=1e-12),
    "relu": F.relu,
    "root of the square": lambda g: (g * g).sqrt(),
    "norm": lambda g: g[:, None].norm(dim=1),
    "exponential of the logarithm": lambda g: g.log().exp(),
    "maximum": lambda g: torch.maximum(g, torch.zeros(())),
    "where": lambda g: torch.where(g > 0, g, torch.zeros_like(g)),
    "sign": lambda g: g * g.sign(),
}


@pytest.mark.parametrize("name", WRONG_FOR_NEGATIVE_SCALES)
def test_a_fold_that_is_wrong_for_negative_scales(name: str) -> None:
    verdict = foldproof.prove_pass(folding(WRONG_FOR_NEGATIVE_SCALES[name]), Scaled(), (X,))
    if name == "exponential of the logarithm":  # the logarithm of a negative number is no number: nothing to show
        assert verdict.kind in (Kind.REFUTED, Kind.UNDECIDED, Kind.ROUNDING), str(verdict)
        return
    assert verdict.kind is Kind.REFUTED and verdict.counterexample is not None, str(verdict)
    assert bool((verdict.counterexample.parameters["gamma"] < 0).any())


def test_a_right_fold_is_proved() -> None:
    assert foldproof.prove_pass(folding(lambda g: g * 1), Scaled(), (X,)).kind is Kind.PROVED


def test_buffers_keep_their_sign() -> None:
    """A buffer may be a variance, and a pass may rely on that."""
    verdict = foldproof.prove_pass(folding(torch.abs), Scaled(as_buffer=True), (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.REFUTED), str(verdict)


def test_batch_norms_of_positive_scales() -> None:
    @torch.no_grad()
    def fold(model: nn.Sequential) -> None:
        linear, norm = model
        scale = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
        linear.bias.copy_((linear.bias - norm.running_mean) * scale + norm.bias)
        linear.weight.copy_(linear.weight * scale[:, None])
        model[1] = nn.Identity()

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    verdict = foldproof.prove_pass(fold, model, (X,))
    assert verdict.kind is Kind.REFUTED and verdict.counterexample is not None, str(verdict)
    assert bool((verdict.counterexample.parameters["1.running_var"] >= 0).all())
