"""A language model with most of what ports get wrong, as two people would write it.

The reference keeps one matrix for each projection, and turns the halves of each head. The port keeps q, k and v in one
matrix, and turns neighbouring pairs, so that its conversion permutes rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, WIDTH, HEADS, GROUPS, SIZE, HIDDEN, LENGTH = 11, 16, 4, 2, 4, 24, 6
LAYERS = 1
TOKENS = torch.tensor([[1, 10, 4, 4, 0, 7]])
OFFSET = 2
"""Rows of the table of positions in front of the first position, as in RoBERTa and OPT."""


@dataclass(frozen=True)
class Choices:
    """The decisions of an author; the defaults are those of the reference."""

    embedding_scale: float = WIDTH**0.5
    epsilon: float = 1e-5
    gelu: str = "tanh"
    offset: int = OFFSET
    packed_by_head: bool = False
    bias: bool = True
    scale: float = SIZE**-0.5
    window: int = 3
    cap: float | None = 30.0
    tiled: bool = False
    norm_first: bool = True
    tied: bool = False
    pairs: bool = True
    """Turn neighbouring pairs; only the port does."""


def angles() -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, SIZE, 2).float() / SIZE)
    return torch.outer(torch.arange(LENGTH).float(), frequencies)


def turned_halves(x: Tensor) -> Tensor:
    cos, sin = angles().cos(), angles().sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def turned_pairs(x: Tensor) -> Tensor:
    cos, sin = angles().cos(), angles().sin()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def mask(window: int) -> Tensor:
    """True where a query, in its row, sees a key: itself and the ``window`` - 1 before it."""
    ones = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    return ones.tril() & ~ones.tril(-window)


class Norm(nn.Module):
    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.rand(WIDTH) + 0.5), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.epsilon).rsqrt() * self.weight


class Embedding(nn.Embedding):
    def __init__(self, scale: float) -> None:
        super().__init__(VOCABULARY, WIDTH)
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * self.scale


class Positions(nn.Embedding):
    def __init__(self, offset: int) -> None:
        super().__init__(LENGTH + OFFSET, WIDTH)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(torch.arange(LENGTH) + self.offset)


# ------------------------------------------------------------------------------------------------ the reference


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * SIZE)
        self.k_proj, self.v_proj = nn.Linear(WIDTH, GROUPS * SIZE), nn.Linear(WIDTH, GROUPS * SIZE)
        self.o_proj = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, SIZE)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turned_halves(q), turned_halves(k)
        k, v = (t.repeat_interleave(HEADS // GROUPS, 1) for t in (k, v))
        scores = (q @ k.transpose(-2, -1) * SIZE**-0.5).masked_fill(~mask(3), float("-inf"))
        out: Tensor = self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.down_proj = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_norm, self.attention, self.post_norm, self.mlp = Norm(), Attention(), Norm(), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.input_norm(x))
        out: Tensor = x + self.mlp(self.post_norm(x))
        return out


class Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = Embedding(WIDTH**0.5), Positions(OFFSET)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.norm, self.head = Norm(), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.positions(self.embed(tokens))
        for layer in self.layers:
            x = layer(x)
        return 30.0 * torch.tanh(self.head(self.norm(x)) / 30.0)


# ------------------------------------------------------------------------------------------------ the port


class Mixer(nn.Module):
    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.choices = choices
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * GROUPS) * SIZE, bias=choices.bias)
        self.out = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        c, heads = self.choices, self.qkv(x).unflatten(-1, (-1, SIZE)).transpose(1, 2)
        if c.packed_by_head:  # for each group: its queries, its key, its value
            groups = heads.unflatten(1, (GROUPS, HEADS // GROUPS + 2))
            q, k, v = groups[:, :, :-2].flatten(1, 2), groups[:, :, -2], groups[:, :, -1]
        else:
            q, k, v = heads.split([HEADS, GROUPS, GROUPS], 1)
        turned = turned_pairs if c.pairs else turned_halves
        q, k = turned(q), turned(k)
        repeats = HEADS // GROUPS
        k, v = (t.repeat(1, repeats, 1, 1) if c.tiled else t.repeat_interleave(repeats, 1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask(c.window), scale=c.scale)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Feedforward(nn.Module):
    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.up, self.down, self.gelu = nn.Linear(WIDTH, 2 * HIDDEN), nn.Linear(HIDDEN, WIDTH), choices.gelu

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        out: Tensor = self.down(F.gelu(gate, approximate=self.gelu) * up)
        return out


class Block(nn.Module):
    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = Norm(choices.epsilon), Norm(choices.epsilon)
        self.mixer, self.mlp, self.norm_first = Mixer(choices), Feedforward(choices), choices.norm_first

    def forward(self, x: Tensor) -> Tensor:
        if not self.norm_first:
            x = self.ln_1(x + self.mixer(x))
            out: Tensor = self.ln_2(x + self.mlp(x))
            return out
        x = x + self.mixer(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Port(nn.Module):
    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.wte, self.wpe = Embedding(choices.embedding_scale), Positions(choices.offset)
        self.h = nn.ModuleList([Block(choices) for _ in range(LAYERS)])
        self.ln_f, self.unembed, self.cap = Norm(), nn.Linear(WIDTH, VOCABULARY, bias=False), choices.cap
        if choices.tied:
            self.unembed.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wpe(self.wte(tokens))
        for block in self.h:
            x = block(x)
        logits: Tensor = self.unembed(self.ln_f(x))
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


NAMES = {"input_norm": "ln_1", "attention.o_proj": "mixer.out", "post_norm": "ln_2", "mlp.down_proj": "mlp.down"}


def as_pairs(x: Tensor) -> Tensor:
    """Reorder the rows of each head from two halves to pairs."""
    return x.unflatten(0, (-1, 2, SIZE // 2)).transpose(1, 2).flatten(0, 2)


def convert(state: dict[str, Tensor], pairs: bool = True) -> dict[str, Tensor]:
    out = {"wte.weight": state["embed.weight"], "wpe.weight": state["positions.weight"]}
    out |= {"ln_f.weight": state["norm.weight"], "unembed.weight": state["head.weight"]}
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            of = {name: state.get(f"layers.{i}.{name}.{kind}") for name in _PARTS}
            reorder = as_pairs if pairs else torch.clone
            q, k = reorder(of["attention.q_proj"]), reorder(of["attention.k_proj"])
            out[f"h.{i}.mixer.qkv.{kind}"] = torch.cat([q, k, of["attention.v_proj"]])
            out[f"h.{i}.mlp.up.{kind}"] = torch.cat([of["mlp.gate_proj"], of["mlp.up_proj"]])
            out |= {f"h.{i}.{new}.{kind}": x for old, new in NAMES.items() if (x := of[old]) is not None}
    return out


_PARTS = (*NAMES, "attention.q_proj", "attention.k_proj", "attention.v_proj", "mlp.gate_proj", "mlp.up_proj")
