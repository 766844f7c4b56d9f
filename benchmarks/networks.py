"""Networks of the benchmarks: the shapes of ResNet-50 and of four layers of BERT-base."""

from __future__ import annotations

import torch
from torch import nn


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
