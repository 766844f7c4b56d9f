"""Small models with BatchNorm statistics that are far from trivial."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Norm = nn.modules.batchnorm._BatchNorm


def trained(model: nn.Module) -> nn.Module:
    """``model`` in eval mode, its BatchNorms as if trained: random statistics and affine parameters of both signs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Norm):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
                module.weight.normal_(generator=generator)
                module.bias.normal_(generator=generator)
    return model.eval()


class ReadTwice(nn.Module):
    """A conv whose output has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = self.bn(y) + y
        return out


class CalledTwice(nn.Module):
    """One conv called twice, with a BatchNorm each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(self.conv(x)) + self.second(self.conv(x * 2))
        return out
