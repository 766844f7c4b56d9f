"""Measurements of large models, each run in a process of its own: ``python -m benchmarks.large NAME`` prints JSON.

Weights are random. A language model reads 8 tokens; it is proved equal to PyTorch's decomposition of its export.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, ResNetConfig
from transformers import ResNetForImageClassification as ResNet

import foldproof
from benchmarks.ports import Port, convert

TOKENS = 8


class Logits(nn.Module):
    """A language model as a function from tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


def layers(count: int) -> dict[str, Any]:
    """Prove a Llama without weights, with hidden size 512, of ``count`` layers."""
    small = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8, "vocab_size": 4000}
    return _without_weights(LlamaConfig(num_hidden_layers=count, **small))


def llama3_8b() -> dict[str, Any]:
    """Prove a model of Llama-3-8B's configuration without weights."""
    sizes = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    return _without_weights(LlamaConfig(**sizes, **heads, rope_theta=500000.0, rms_norm_eps=1e-5))


def _without_weights(config: LlamaConfig) -> dict[str, Any]:
    with torch.device("meta"):
        model = Logits(LlamaForCausalLM(config).eval())
        program = torch.export.export(model, (torch.zeros(1, TOKENS, dtype=torch.int64),))
    return _proved(program, model)


def qwen2_half_b() -> dict[str, Any]:
    """Prove a model of Qwen2-0.5B's configuration with random weights."""
    sizes = {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    torch.manual_seed(0)
    model = Logits(Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval())
    program = torch.export.export(model, (torch.zeros(1, TOKENS, dtype=torch.int64),))
    found = _proved(program, model)
    double, tokens = model.double(), torch.arange(TOKENS).unsqueeze(0)
    start = time.process_time()
    with torch.no_grad():
        for _ in range(2):
            double(tokens)
    forwards = time.process_time() - start
    per_prime = found["seconds"] / (found["primes"] + 0.5) / forwards
    return found | {"per prime over two float64 forwards": round(per_prime, 2)}


def port(count: int, vocabulary: int) -> dict[str, Any]:
    """Prove a port of Qwen2 with ``count`` layers of Qwen2-0.5B's sizes, for every checkpoint (16 tokens)."""
    sizes = {"vocab_size": vocabulary, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": count}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    torch.manual_seed(0)
    config = Qwen2Config(**sizes, **heads)
    model, other, tokens = Logits(Qwen2ForCausalLM(config).eval()), Port(config).eval(), torch.arange(16).unsqueeze(0)

    def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return convert({name.removeprefix("model."): x for name, x in state.items()}, 14, 2)

    prove, before, start = foldproof.prove, _peak(), time.process_time()
    verdict = prove(model, other, (tokens,), convert=converted)
    seconds = time.process_time() - start
    assert verdict.kind is foldproof.Kind.PROVED and verdict.proof is not None, verdict
    memory, weights = _memory(before), sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    doubles = model.double(), other.double()
    start = time.process_time()
    with torch.no_grad():
        for double in doubles:
            double(tokens)
    forwards = time.process_time() - start
    return {
        "seconds": seconds,
        "weights of each, MiB": round(weights),
        "primes": len(verdict.proof.primes),
        **memory,
        "per prime over two float64 forwards": round(seconds / len(verdict.proof.primes) / forwards, 2),
    }


def _proved(program: torch.export.ExportedProgram, model: nn.Module) -> dict[str, Any]:
    other, tokens = program.run_decompositions(), torch.arange(TOKENS).unsqueeze(0)
    before, start = _peak(), time.process_time()
    verdict = foldproof.prove(program, other, (tokens,))
    assert verdict.kind is foldproof.Kind.PROVED and verdict.proof is not None, verdict
    return {
        "seconds": time.process_time() - start,
        "parameters, millions": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "nodes": f"{len(program.graph.nodes)} → {len(other.graph.nodes)}",
        "primes": len(verdict.proof.primes),
        "cut points": verdict.proof.cuts,
        **_memory(before),
    }


def resnet(depths: list[int]) -> dict[str, Any]:
    """Fuse a ResNet on one photograph's size, with proofs."""
    torch.manual_seed(0)
    model = ResNet(ResNetConfig(depths=depths, num_labels=1000)).eval()
    x = torch.randn(1, 3, 224, 224)
    program = torch.export.export(model, (x,))
    before, start = _peak(), time.process_time()
    fused = foldproof.fuse(program, (x,))
    assert fused.verdict is not None and fused.verdict.kind is foldproof.Kind.PROVED
    seconds = time.process_time() - start
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return {"seconds": seconds, "folds": len(fused.rewrites), "weights, MiB": round(weights), **_memory(before)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory(before: float) -> dict[str, int]:
    return {"peak before, MiB": round(before), "peak memory of the process, MiB": round(_peak())}


MEASUREMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"{n} layers on meta": lambda n=n: layers(n) for n in (2, 12, 48)},
    "Qwen2-0.5B": qwen2_half_b,
    "port of 8 layers": lambda: port(8, 4000),
    "port of Qwen2-0.5B": lambda: port(24, 151936),
    "Llama-3-8B on meta": llama3_8b,
    "fuse ResNet-50": lambda: resnet([3, 4, 6, 3]),
    "fuse ResNet-152": lambda: resnet([3, 8, 36, 3]),
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(MEASUREMENTS[sys.argv[1]]()) + "\n")
