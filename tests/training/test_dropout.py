"""Dropout in training steps: the same mask on the way back, a mask from a saved state, and masks drawn twice."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import foldproof
from foldproof import Kind

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class Dropout(torch.autograd.Function):
    """Dropout with a backward by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mask = torch.empty_like(x).bernoulli_(0.5).div_(0.5)
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[0]


class DrawnTwice(Dropout):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * torch.empty_like(grad).bernoulli_(0.5).div_(0.5)


class NotScaled(Dropout):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * (ctx.saved_tensors[0] > 0)


class Unmasked(Dropout):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad


def test_a_right_backward_is_proved() -> None:
    x = X.clone().requires_grad_()
    verdict = foldproof.prove_step(lambda x: F.dropout(x, 0.5), Dropout.apply, (x,))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("wrong", [DrawnTwice, NotScaled, Unmasked])
def test_a_wrong_backward_is_refuted(wrong: Any) -> None:
    x = X.clone().requires_grad_()
    verdict = foldproof.prove_step(lambda x: F.dropout(x, 0.5), wrong.apply, (x,))
    assert verdict.kind is Kind.REFUTED, verdict


def mlp(p: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(p), nn.ReLU(), nn.Dropout(p), nn.Linear(8, 3))


class Checkpointed(nn.Module):
    """A model that is computed again on the way back, from the state of the generator or from the present one."""

    def __init__(self, model: nn.Module, saves_state: bool) -> None:
        super().__init__()
        self.model, self.saves_state = model, saves_state

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.model, x, use_reentrant=False, preserve_rng_state=self.saves_state)


def test_a_copy_is_proved_and_another_probability_refuted() -> None:
    model = mlp()
    assert foldproof.prove_step(model, copy.deepcopy(model), (X,), loss=F.mse_loss, targets=(Y,)).kind is Kind.PROVED
    assert foldproof.prove_step(model, mlp(0.4), (X,), loss=F.mse_loss, targets=(Y,)).kind is Kind.REFUTED


@pytest.mark.parametrize("saves_state", [True, False])
def test_checkpointing_has_to_save_the_state(saves_state: bool) -> None:
    model = mlp()
    candidate = Checkpointed(model, saves_state)
    verdict = foldproof.prove_step(model, candidate, (X,), loss=F.mse_loss, targets=(Y,))
    assert verdict.kind is (Kind.PROVED if saves_state else Kind.REFUTED), verdict


def test_an_activation_between_a_draw_and_a_norm_is_proved() -> None:
    """A variance has a sign, so that the comparison in the backward has a result for all draws."""

    def step(x: Tensor, g: Tensor, eps: float, limit: float = 0.0) -> Any:
        var, mean = torch.var_mean(F.dropout(x, 0.5), 0, correction=0, keepdim=True)
        y = torch.relu((F.dropout(x, 0.5) - mean) * torch.rsqrt(var + eps))
        return y, torch.where(y <= limit, 0.0, g)

    def derived(x: Tensor, g: Tensor) -> Any:
        with torch.enable_grad():
            leaf = step(x, g, 1e-5)[0].detach().requires_grad_()
            (grad,) = torch.autograd.grad(torch.relu(leaf), leaf, g)
        return leaf.detach(), grad

    given = X, X.flip(0)
    assert foldproof.prove(derived, lambda x, g: step(x, g, 1e-5), given).kind is Kind.PROVED
    assert foldproof.prove(derived, lambda x, g: step(x, g, 1e-5, 0.5), given).kind is Kind.REFUTED
    assert foldproof.prove(derived, lambda x, g: step(x, g, -0.5), given).kind is not Kind.PROVED
