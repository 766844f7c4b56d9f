"""Proof against plain evaluation: per prime, at most 3x one float64 forward of *before* plus one of *after*."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch
from torch import nn

import foldproof


class Bottleneck(nn.Module):
    """ResNet's residual block of three convolutions (He et al., 2016)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def resnet_like() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    blocks: list[nn.Module] = []
    for width, inner, n in ((256, 64, 3), (512, 128, 4), (1024, 256, 6), (2048, 512, 3)):
        blocks += [nn.Conv2d(blocks_width(blocks), width, 1, 1 if not blocks else 2)]
        blocks += [Bottleneck(width, inner) for _ in range(n)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*stem, *blocks, *head).eval(), (torch.randn(1, 3, 128, 128),)


def blocks_width(blocks: list[nn.Module]) -> int:
    convolutions = [b for b in blocks if isinstance(b, nn.Conv2d)]
    return convolutions[-1].out_channels if convolutions else 64


def bert_like() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    layer = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).eval(), (torch.randn(1, 128, 768),)


@pytest.mark.parametrize("make", [resnet_like, bert_like])
def test_prove_per_prime(benchmark: Any, make: Any) -> None:
    torch.manual_seed(0)
    model, args = make()
    with torch.no_grad():
        before = torch.export.export(model, args)
        after = before.run_decompositions()
        wide = tuple(a.double() for a in args)
        double = torch.export.export(copy.deepcopy(model).double(), wide)
        modules = [double.module(), double.run_decompositions().module()]
    ratios = []

    def once() -> None:
        with torch.no_grad():
            start = time.perf_counter()
            for module in modules:
                module(*wide)
            forward = time.perf_counter() - start
        verdict = foldproof.prove(before, after, args)
        assert verdict.kind is foldproof.Kind.PROVED, str(verdict)
        assert verdict.proof is not None
        # one more prime for the scout that finds out how many are needed
        ratios.append(verdict.seconds / (verdict.proof.k + 1) / forward)

    benchmark.pedantic(once, rounds=3, warmup_rounds=1)
    benchmark.extra_info["per prime over two float64 forwards"] = round(sorted(ratios)[len(ratios) // 2], 2)
