"""A port of Qwen2, written anew in PyTorch alone, and the conversion of transformers' checkpoints to it.

Its checkpoint is another one: one matrix for queries, keys and values, whose heads turn neighbouring pairs, and one for
the gate and what it lets pass. So a conversion permutes and concatenates most weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon))


class Layer(nn.Module):
    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        width, hidden = config.hidden_size, config.intermediate_size
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = width // self.heads
        self.attention_norm = Norm(width, config.rms_norm_eps)
        self.packed = nn.Linear(width, (self.heads + 2 * self.groups) * self.size)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = Norm(width, config.rms_norm_eps)
        self.gate_and_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attend(self.attention_norm(x), cos, sin)
        gate, up = self.gate_and_up(self.feed_forward_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.packed(x).view(batch, length, -1, self.size).transpose(1, 2)
        q, k, v = heads.split([self.heads, self.groups, self.groups], 1)
        q, k = turned_pairs(q, cos, sin), turned_pairs(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def turned_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


class Port(nn.Module):
    """Qwen2 with tied embeddings: a function from tokens to logits."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        size = config.hidden_size // config.num_attention_heads
        self.frequencies = 1.0 / (config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        angles = torch.outer(torch.arange(tokens.shape[1]).float(), self.frequencies)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embedding.weight)


def convert(state: dict[str, Tensor], heads: int, groups: int) -> dict[str, Tensor]:
    """Return the port's checkpoint of that of transformers' ``Qwen2ForCausalLM``."""
    made = {"embedding.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    for name in state:
        if not name.endswith("input_layernorm.weight"):
            continue
        old = name.removesuffix("input_layernorm.weight")
        new = old.removeprefix("model.")
        for kind in ("weight", "bias"):
            q, k, v = (state[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv")
            made[f"{new}packed.{kind}"] = torch.cat([in_pairs(q, heads), in_pairs(k, groups), v])
        made[f"{new}out.weight"] = state[f"{old}self_attn.o_proj.weight"]
        made[f"{new}gate_and_up.weight"] = torch.cat([state[f"{old}mlp.{part}_proj.weight"] for part in ("gate", "up")])
        made[f"{new}down.weight"] = state[f"{old}mlp.down_proj.weight"]
        made[f"{new}attention_norm.weight"] = state[name]
        made[f"{new}feed_forward_norm.weight"] = state[f"{old}post_attention_layernorm.weight"]
    return made


def in_pairs(x: Tensor, heads: int) -> Tensor:
    """Return the rows of each head with its second half between those of its first."""
    return x.view(heads, 2, -1, *x.shape[1:]).transpose(1, 2).reshape(x.shape)
