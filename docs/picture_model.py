"""The model of the picture in the README: a fold into a convolution, a fold through views, and a declined one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Convolution, tokens, and a BatchNorm after a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.tokens, self.token_norm = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.last = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu()
        y = self.token_norm(self.tokens(y.flatten(2).transpose(1, 2)).flatten(0, 1))
        result: Tensor = self.last(y.softmax(-1))
        return result


def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model as training might leave it, and an input."""
    torch.manual_seed(0)
    model = Net()
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return model.eval(), (torch.randn(2, 3, 9, 9),)
