"""A model that ExecuTorch 1.5.1 lowers wrongly: of two consecutive activations, XNNPACK keeps only the second.

foldproof audit examples/two_activations.py:make --compiler executorch
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def make() -> tuple[nn.Module, tuple[Tensor]]:
    """The model, in eval mode, and an image."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Hardtanh(), nn.Conv2d(8, 8, 3), nn.ReLU())
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, 16, 16),)
