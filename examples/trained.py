"""A model that returns its loss, for ``foldproof audit examples/trained.py:make --compiler inductor --training``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """A small language model and the loss of its predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 11)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.head(F.gelu(self.norm(self.embed(tokens)))), targets)


def make() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return the model in training mode, with tokens and targets."""
    torch.manual_seed(0)
    return Classifier(), (torch.randint(11, (6,)), torch.randint(11, (6,)))
