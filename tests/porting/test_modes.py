"""One model in two modes: decoding with a cache, batches, merged adapters, routed experts, shards of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldproof
from foldproof import Kind

TOKENS = torch.arange(5).reshape(1, 5) * 7 % 64
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}


def language_model(kind: str, **own: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = {name: own.pop(name) for name in ("experts_implementation",) if name in own}
    config = getattr(transformers, f"{kind}Config")(**SIZES, **own)
    return getattr(transformers, f"{kind}ForCausalLM")._from_config(config, **settings).eval()


def test_steps_with_a_cache_are_one_forward() -> None:
    transformers = pytest.importorskip("transformers")
    model = language_model("Llama")

    def whole(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, use_cache=False).logits

    def steps(tokens: Tensor, offset: int = 0) -> Tensor:
        cache, made = transformers.DynamicCache(config=model.config), []
        for i in range(tokens.shape[1]):
            at = torch.tensor([[i + offset * (i > 1)]])
            call = model(input_ids=tokens[:, i : i + 1], past_key_values=cache, position_ids=at, use_cache=True)
            made.append(call.logits)
        return torch.cat(made, 1)

    verdict = foldproof.prove(whole, steps, (TOKENS,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.all_parameters, verdict

    def skipping(tokens: Tensor) -> Tensor:
        return steps(tokens, offset=1)

    assert foldproof.prove(whole, skipping, (TOKENS,)).kind is Kind.REFUTED


def test_a_batch_is_each_by_itself() -> None:
    model = language_model("Llama")

    def alone(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, use_cache=False).logits

    def in_a_batch(tokens: Tensor) -> Tensor:
        return model(input_ids=torch.cat([tokens.flip(1), tokens]), use_cache=False).logits[1:]

    assert foldproof.prove(alone, in_a_batch, (TOKENS,)).kind is Kind.PROVED


def test_routed_experts() -> None:
    """Experts one by one, and as one batched product, both by transformers."""
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2}
    one_by_one = language_model("Mixtral", experts_implementation="eager", **sizes)
    batched = language_model("Mixtral", experts_implementation="batched_mm", **sizes)
    verdict = foldproof.prove(
        lambda tokens: one_by_one(input_ids=tokens, use_cache=False).logits,
        lambda tokens: batched(input_ids=tokens, use_cache=False).logits,
        (TOKENS,),
        convert=dict,
    )
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.follows_choices and verdict.claim is not None and verdict.claim.all_parameters


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter (LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + 0.5 * self.b(self.a(x))
        return out


def test_a_merged_adapter() -> None:
    def merged(scale: float) -> foldproof.Verdict:
        def merge(state: dict[str, Tensor]) -> dict[str, Tensor]:
            return {
                "weight": state["base.weight"] + scale * state["b.weight"] @ state["a.weight"],
                "bias": state["base.bias"],
            }

        return foldproof.prove(Adapted(), nn.Linear(6, 8), (torch.randn(3, 6),), convert=merge)

    right = merged(0.5)
    assert right.kind is Kind.PROVED and right.claim is not None and right.claim.is_general, right
    assert merged(0.25).kind is Kind.REFUTED


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.up(x)))
        return out


class Ranks(nn.Module):
    """The ranks of tensor parallelism in one process; a sum is their ``all_reduce``."""

    def __init__(self, bias_on_each: bool = False) -> None:
        super().__init__()
        self.ranks, self.bias_on_each = nn.ModuleList([MLP() for _ in range(2)]), bias_on_each
        for rank in self.ranks:
            rank.up, rank.down = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.linear(F.silu(rank.up(x)), rank.down.weight) for rank in self.ranks]
        biases = [rank.down.bias for rank in self.ranks[: 2 if self.bias_on_each else 1]]
        return sum(parts) + sum(biases)  # type: ignore[return-value]


def sharded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for i in range(2):
        out |= {f"ranks.{i}.up.{kind}": state[f"up.{kind}"].chunk(2)[i] for kind in ("weight", "bias")}
        out[f"ranks.{i}.down.weight"] = state["down.weight"].chunk(2, 1)[i]
        out[f"ranks.{i}.down.bias"] = state["down.bias"]
    return out


def test_shards_of_weights() -> None:
    x = torch.randn(3, 6)
    verdict = foldproof.prove(MLP(), Ranks(), (x,), convert=sharded)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    assert foldproof.prove(MLP(), Ranks(bias_on_each=True), (x,), convert=sharded).kind is Kind.REFUTED


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)[:, 0]


def test_padding_on_the_left() -> None:
    """Queries of the padding see nothing, so that their rows are masked throughout; PyTorch gives 0 there."""
    attend, x = Attend(), torch.randn(2, 3, 4)

    def unpadded(x: Tensor) -> Tensor:
        return attend(x, torch.ones(3, 3, dtype=torch.bool).tril())

    def padded(x: Tensor, hidden: int = 2) -> Tensor:
        seen = torch.ones(5, 5, dtype=torch.bool).tril()
        seen[:, :hidden] = False
        return attend(torch.cat([x.new_ones(2, 2, 4), x], 1), seen)[:, 2:]

    def padded_by_half(x: Tensor) -> Tensor:
        return padded(x, hidden=1)

    def whole(x: Tensor) -> Tensor:
        seen = torch.ones(3, 3, dtype=torch.bool).tril()
        seen[0] = False
        return attend(x, seen)

    def whole_with_zeros(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros(2, 1, 4), unpadded(x)[:, 1:]], 1)

    verdict = foldproof.prove(unpadded, padded, (x,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    assert foldproof.prove(unpadded, padded_by_half, (x,)).kind is Kind.REFUTED
    assert foldproof.prove(whole, whole_with_zeros, (x,)).kind is Kind.PROVED
    assert foldproof.prove(whole, unpadded, (x,)).kind is Kind.REFUTED
