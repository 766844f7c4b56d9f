"""What an entry of the zoo is, and how a model with example inputs is made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from zoo.statistics import amplify, calibrate, scatter

Inputs = tuple[Tensor, ...]


class Family(str, Enum):
    """What an architecture is mostly made of."""

    CONVOLUTION = "convolution"
    VISION = "vision transformer"
    AUDIO = "audio"
    SERIES = "time series"
    TEXT = "text"
    HEAD = "head"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Sample:
    """A model in eval mode and inputs for it."""

    model: nn.Module
    inputs: Inputs


@dataclass(frozen=True)
class Architecture:
    """A model class with a small configuration, and the inputs it takes.

    ``make`` gives a model with the class's own random initialisation; ``draw`` gives random inputs.
    """

    name: str
    family: Family
    make: Callable[[], nn.Module]
    draw: Callable[[], Inputs]

    def build(self) -> Sample:
        """The model and its inputs, the same at every call.

        Weights are given a size that keeps signals alive, constant parameters (ones, zeros, a LayerScale of 1e-6) are
        scattered, and BatchNorm statistics are calibrated, so that every part counts and outputs depend on the inputs.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make().eval()
            inputs = self.draw()
        amplify(model)
        scatter(model)
        calibrate(model, inputs)
        return Sample(model, inputs)

    def redraw(self, seed: int) -> Inputs:
        """Other inputs of the same shapes and dtypes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.draw()
