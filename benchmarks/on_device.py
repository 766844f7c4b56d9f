"""SPECs for `benchmarks/gpu.sh`: a network of convolutions, and attention in three forms, of which one is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def network() -> tuple[nn.Module, tuple[Tensor]]:
    """A convolution network on 4 images of 3×32×32 pixels."""
    torch.manual_seed(0)

    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(3, 32), *block(32, 64), nn.Flatten(), nn.Linear(4096, 10)]
    return nn.Sequential(*layers).eval(), (torch.randn(4, 3, 32, 32),)


class Attention(nn.Module):
    """Causal attention of 4 heads of 16 channels on 2 sequences of 32 tokens; ``scale`` None is PyTorch's own."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale, self.qkv, self.out = scale, nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(2, 32, 3, 4, 16).permute(2, 0, 3, 1, 4)
        if self.scale is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            later = torch.ones(32, 32, dtype=torch.bool, device=x.device).triu(1)
            y = (q @ k.mT * self.scale).masked_fill(later, float("-inf")).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def _attention(scale: float | None) -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    return Attention(scale).eval(), (torch.randn(2, 32, 64),)


def attention() -> tuple[nn.Module, tuple[Tensor]]:
    """PyTorch's own attention."""
    return _attention(None)


def attention_by_hand() -> tuple[nn.Module, tuple[Tensor]]:
    """The same attention from its parts."""
    return _attention(0.25)


def attention_without_scale() -> tuple[nn.Module, tuple[Tensor]]:
    """A wrong one."""
    return _attention(1.0)
