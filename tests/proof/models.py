"""Small models with BatchNorm statistics that are far from trivial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


class Module(nn.Module):
    """A module whose forward is ``function(self, ...)``; tensors among ``attributes`` are buffers."""

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


class Holder:
    """An object that torch knows nothing of."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Low(nn.Module):
    """A linear layer that stores its parameters in bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().bfloat16())
        self.bias = nn.Parameter(linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.float(), self.bias.float())


class AddsAndSubtracts(nn.Module):
    """Two keyword arguments that matter differently."""

    def forward(self, x: Tensor, plus: Tensor | None = None, minus: Tensor | None = None) -> Tensor:
        assert plus is not None and minus is not None
        return x + plus - minus


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
