"""Entries of the zoo, and the models and example inputs made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from zoo.statistics import amplify, calibrate, scatter

Inputs = tuple[Tensor, ...]


class Family(str, Enum):
    """The main ingredient of an architecture."""

    CONVOLUTION = "convolution"
    VISION = "vision transformer"
    AUDIO = "audio"
    SERIES = "time series"
    TEXT = "text"
    HEAD = "head"
    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    VOLUME = "3-D"
    GRAPH = "graph net"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Sample:
    """A model in eval mode and inputs for it."""

    model: nn.Module
    inputs: Inputs


@dataclass(frozen=True)
class Architecture:
    """A model class with a small configuration, and its inputs.

    ``make`` gives a model with the class's own random initialisation; ``draw`` gives random inputs.
    """

    name: str
    family: Family
    make: Callable[[], nn.Module]
    draw: Callable[[], Inputs]

    def build(self) -> Sample:
        """Build the model and its inputs, equal at every call.

        Weights are scaled to keep signals alive, constant parameters (ones, zeros, a LayerScale of 1e-6) are perturbed,
        and BatchNorm statistics are calibrated, so every part matters and outputs depend on the inputs.
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


Rows = dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]]


def name_rows(families: Mapping[Family, Rows]) -> dict[str, Architecture]:
    """Return the architectures of a table's rows, by name."""
    return {
        name: Architecture(name, family, make, draw)
        for family, rows in families.items()
        for name, (make, draw) in rows.items()
    }
