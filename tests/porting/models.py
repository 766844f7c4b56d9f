"""A small transformer block as two people would write it, and conversions between the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS = 8, 2
X = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))


class Reference(nn.Module):
    """Attention with one matrix for each of q, k and v, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 20), nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        hidden: Tensor = self.down(F.gelu(self.up(x)))
        return x + hidden


class Attention(nn.Module):
    """Attention with q, k and v in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Port(nn.Module):
    """The same block with modules of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ln, self.attn = nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln(x))
        out: Tensor = x + self.mlp(x)
        return out


NAMES = {"norm": "ln", "o": "attn.out", "up": "mlp.0", "down": "mlp.2"}


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in NAMES.items() for kind in ("weight", "bias")}
    return out | {f"attn.qkv.{kind}": torch.cat([state[f"{x}.{kind}"] for x in "qkv"]) for kind in ("weight", "bias")}
