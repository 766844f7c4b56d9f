"""The program of PyTorch #179574, on the CPU: four linears on one input, and a mean over an embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, kernel_size=3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.embedding = nn.Embedding(1000, 128)
        self.emb_proj = nn.Linear(128, 1024)
        self.w1 = nn.Parameter(torch.randn(256, 1024))
        self.b1 = nn.Parameter(torch.randn(256))
        self.w2 = nn.Parameter(torch.randn(256, 1024))
        self.b2 = nn.Parameter(torch.randn(256))
        self.w3 = nn.Parameter(torch.randn(256, 1024))
        self.b3 = nn.Parameter(torch.randn(256))
        self.w4 = nn.Parameter(torch.randn(256, 1024))
        self.b4 = nn.Parameter(torch.randn(256))
        self.out_proj = nn.Linear(256, 10)

    def forward(self, conv_input: Tensor, embedding_input: Tensor) -> Tensor:
        cx = self.pool(F.relu(self.conv(conv_input)))
        cx = cx.flatten(1)
        ex = self.embedding(embedding_input)
        ex = ex.mean(dim=1)
        ex = self.emb_proj(ex)
        x = cx + ex
        h1 = F.relu(F.linear(x, self.w1, self.b1))
        h2 = F.relu(F.linear(x, self.w2, self.b2))
        h3 = F.relu(F.linear(x, self.w3, self.b3))
        h4 = F.relu(F.linear(x, self.w4, self.b4))
        combined = h1 + h2 + h3 + h4
        out: Tensor = self.out_proj(combined)
        return out


def make() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The model in eval mode and its inputs, as in the report."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        model = Model().eval()
        return model, (torch.randn(4, 3, 32, 32), torch.randint(0, 1000, (4, 16)))
