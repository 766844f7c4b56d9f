"""Small programs written as lambdas, with their tensors and modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Module(nn.Module):
    """``forward`` with tensors as buffers, parameters as parameters and modules as children."""

    def __init__(self, forward: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.function = forward
        for name, x in held.items():
            if isinstance(x, Tensor) and not isinstance(x, nn.Parameter):
                self.register_buffer(name, x)
            else:
                setattr(self, name, x)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * scale
