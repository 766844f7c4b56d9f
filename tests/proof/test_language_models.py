"""A deep language model: PROVED against its decomposition by cut points, and planted changes found at their place."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from foldproof import Kind, prove
from foldproof.proof import decide

LAYERS = 24
FEW = 2
TOKENS = torch.arange(6).reshape(1, 6) * 7 % 64


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


@functools.cache
def model(layers: int) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,  # attention that is nearly uniform hardly depends on its scale
    )
    return transformers.Qwen2ForCausalLM(config).eval()


@functools.cache
def reference(layers: int) -> ExportedProgram:
    return export(Logits(model(layers)), (TOKENS,))


def _with_the_same_parameters(layers: int) -> Any:
    memo = {id(t): t for t in (*model(layers).parameters(), *model(layers).buffers())}
    return copy.deepcopy(model(layers), memo)


def scale(layers: Any, at: int) -> None:
    layers[at].self_attn.scaling *= 1.01


def epsilon(layers: Any, at: int) -> None:
    layers[at].input_layernorm.variance_epsilon *= 10


def swapped(layers: Any, at: int) -> None:
    other = (at + 1) % len(layers)
    layers[at], layers[other] = layers[other], layers[at]


def angle(layers: Any, at: int) -> None:
    """Rotate by the angles of the previous position."""
    forward = layers[at].self_attn.forward

    def rolled(hidden: Tensor, position_embeddings: tuple[Tensor, Tensor], **rest: Any) -> Any:
        cos, sin = position_embeddings
        return forward(hidden, position_embeddings=(cos.roll(1, 1), sin.roll(1, 1)), **rest)

    layers[at].self_attn.forward = lambda hidden_states, **rest: rolled(hidden_states, **rest)


def key(layers: Any, at: int) -> None:
    """Permute the channels of one head's keys."""
    projection = layers[at].self_attn.k_proj
    order = [1, 0, *range(2, projection.weight.shape[0])]
    projection.weight = nn.Parameter(projection.weight.detach()[order].clone())


@pytest.mark.parametrize("layers", [8, pytest.param(LAYERS, marks=pytest.mark.exhaustive)])
def test_a_deep_model_is_proved(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers are equal, so that one would do; see `test_repeats.py`."""
    monkeypatch.setattr(decide, "STRATEGIES", decide.STRATEGIES[1:])
    verdict = prove(reference(layers), reference(layers).run_decompositions(), (TOKENS,))
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.proof is not None and verdict.proof.cuts > layers
    assert f"{verdict.proof.cuts} cut points" in str(verdict)


@pytest.mark.parametrize(
    ("layers", "at"),
    [(FEW, 1), *(pytest.param(LAYERS, at, marks=pytest.mark.exhaustive) for at in (0, LAYERS // 2 - 1, LAYERS - 1))],
)
@pytest.mark.parametrize("plant", [scale, epsilon, swapped, angle, key])
def test_a_planted_change_is_found_at_its_place(plant: Callable[[Any, int], None], layers: int, at: int) -> None:
    changed = _with_the_same_parameters(layers)
    plant(changed.model.layers, at)
    program = export(Logits(changed), (TOKENS,)).run_decompositions()
    verdict = prove(reference(layers), program, (TOKENS,))
    assert verdict.kind is Kind.REFUTED, verdict
    difference = verdict.difference
    assert difference is not None and difference.frontier
    first = 0 if plant is swapped and at == layers - 1 else at  # the last layer is swapped with the first
    assert f"layers.{first}." in f"{difference.module}.", verdict
