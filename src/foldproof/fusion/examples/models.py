"""Parts of the examples: a small model, its inputs, and the expected result of a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Fires:
    """A model in which every affine is folded. ``make`` returns it with example inputs."""

    name: str
    make: Callable[[], Example]


@dataclass(frozen=True)
class Declines:
    """A model in which nothing is folded, for a reason that contains ``reason``."""

    name: str
    make: Callable[[], Example]
    reason: str


class Functional(nn.Module):
    """A model given by a function of itself and its inputs, for cases without a module in torch.nn."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part, requires_grad=False) if isinstance(part, Tensor) else part)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def lively(model: nn.Module) -> nn.Module:
    """Set random statistics and affine parameters, with negative scales among them; return the model in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, (*BATCH_NORMS, *INSTANCE_NORMS)):
            if part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                nn.init.normal_(part.weight, generator=generator)
                nn.init.normal_(part.bias, generator=generator)
    return model.eval()


def made(model: nn.Module, *shapes: tuple[int, ...]) -> Example:
    """Return the model, after `lively`, with normal inputs of these shapes."""
    generator = torch.Generator().manual_seed(1)
    return lively(model), tuple(torch.randn(shape, generator=generator) for shape in shapes)


def chain(shape: tuple[int, ...], *parts: Callable[[], nn.Module]) -> Callable[[], Example]:
    """Return a function that makes a sequence of modules with one input of ``shape``."""
    return lambda: made(nn.Sequential(*(part() for part in parts)), shape)


def functional(
    shapes: tuple[tuple[int, ...], ...], function: Callable[..., Any], **parts: Callable[[], nn.Module | Tensor]
) -> Callable[[], Example]:
    """Return a function that makes a `Functional` of new parts."""
    return lambda: made(Functional(function, **{name: part() for name, part in parts.items()}), *shapes)


def positive(make: Callable[[], Example]) -> Callable[[], Example]:
    """Return a function that makes the same model without negative scales of normalisations."""

    def with_positive_scales() -> Example:
        model, inputs = make()
        for part in model.modules():
            if isinstance(part, BATCH_NORMS) and part.affine:
                with torch.no_grad():
                    part.weight.abs_()
        return model, inputs

    return with_positive_scales
