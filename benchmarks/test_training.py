"""Proof of a training step relative to evaluation: per prime, the target is 3 float64 steps of each side.

A step is a forward and a backward. The time covers all of `foldproof.prove_step`: matching parameters, the scout run,
the proof, the float64 check, and a run of the real steps.
"""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

import foldproof


class Checkpointed(nn.Module):
    """A model of which the backward computes each layer again."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return checkpoint_sequential(self.model, len(self.model), x, use_reentrant=False)


def convolutional() -> tuple[nn.Sequential, torch.Tensor]:
    layers = [nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU()) for _ in range(4)]
    return nn.Sequential(*layers), torch.randn(2, 64, 32, 32)


def attentive() -> tuple[nn.Sequential, torch.Tensor]:
    layers = [
        nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, activation="gelu", batch_first=True) for _ in range(2)
    ]
    return nn.Sequential(*layers), torch.randn(2, 64, 256)


@pytest.mark.parametrize("make", [convolutional, attentive])
def test_prove_step_per_prime(benchmark: Any, make: Any) -> None:
    torch.manual_seed(0)
    model, x = make()
    candidate = Checkpointed(model)
    sides = [copy.deepcopy(side).double() for side in (model, candidate)]
    ratios = []

    def once() -> None:
        start = time.perf_counter()
        for side in sides:
            side(x.double()).square().sum().backward()
        steps = time.perf_counter() - start
        start = time.perf_counter()
        verdict = foldproof.prove_step(model, candidate, (x,))
        taken = time.perf_counter() - start
        assert verdict.kind is foldproof.Kind.PROVED, str(verdict)
        assert verdict.proof is not None
        # half a prime more for the scout run, which runs one of the two steps with one prime
        ratios.append(taken / (verdict.proof.k + 0.5) / steps)

    benchmark.pedantic(once, rounds=3, warmup_rounds=1)
    benchmark.extra_info["per prime over two float64 steps"] = round(median(ratios[1:]), 2)
