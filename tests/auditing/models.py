"""Models on which released compilers go wrong, and one on which they do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.proof.models import CalledTwice, ReadTwice, trained


class NormTwice(nn.Module):
    """conv → BatchNorm → BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.conv(x)))


class TiedLinear(nn.Module):
    """One linear layer, used twice, each time with a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.first, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.linear(self.first(self.linear(x))))


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x * self.count


class WriteBetween(nn.Module):
    """Parallel linears, and a write to their input in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for i, layer in enumerate(self.layers):
            out.append(F.linear(x, layer.weight, layer.bias))
            if i == 1:
                x.add_(1)
        return torch.cat(out)


class AddedUp(nn.Module):
    """A linear layer on a mean of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.linear = nn.Embedding(100, 256), nn.Linear(256, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.words(tokens).mean(1))


@dataclass(frozen=True)
class Case:
    """A released compiler's wrong answer: the pass that makes it."""

    compiler: str
    model: nn.Module
    shape: tuple[int, ...]
    guilty: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return trained(self.model), (torch.randn(self.shape),)


WRONG = {
    "executorch: linear, 3-D, BatchNorm": Case(
        "executorch", nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (4, 6, 6), "FuseBatchNormPass"
    ),
    "executorch: one conv weight, two BatchNorms": Case("executorch", CalledTwice(), (2, 3, 8, 8), "FuseBatchNormPass"),
    "executorch: conv, ReLU, Hardtanh": Case(
        "executorch", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Hardtanh()), (1, 3, 6, 6), "FuseActivationPass"
    ),
    "torchao: conv, BatchNorm, BatchNorm": Case("torchao", NormTwice(), (2, 3, 4, 4), "_fuse_conv_bn_"),
    "torchao: conv output read twice": Case("torchao", ReadTwice(), (2, 3, 4, 4), "_fuse_conv_bn_"),
    "torchao: tied linear": Case("torchao", TiedLinear(), (3, 4), "_fuse_linear_bn_"),
    "torchao: a buffer that is written to": Case("torchao", Counter(), (2, 4), "constant_fold", {"quantizer": "none"}),
    "fx: conv called twice": Case("fx", CalledTwice(), (2, 3, 8, 8), "fuse"),
    "inductor: freezing ConvTranspose2d, BatchNorm": Case(
        "inductor",
        nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)),
        (2, 4, 8, 8),
        "binary_folding.folded_op",
        {"freezing": True},
    ),
    "inductor: batch_linear over a write": Case(
        "inductor", WriteBetween(), (2, 4), "batch_linear", {"pre_grad_fusion_options": {"batch_linear": {}}}
    ),
}


def right() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model that every compiler folds rightly."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    return trained(nn.Sequential(*layers)), (torch.randn(2, 3, 8, 8),)
