"""Large weights of a port stay functions of the reference's, and are neither stored nor drawn for that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import foldproof
from benchmarks.ports import Port, convert
from foldproof import Kind
from foldproof.shadow import Shadow
from foldproof.shadow.matrices import Matrix
from foldproof.shadow.ondemand import Memory

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 384, "intermediate_size": 320, "num_attention_heads": 6, "num_key_value_heads": 2}
TOKENS = torch.arange(3).unsqueeze(0)
converted = functools.partial(convert, heads=6, groups=2)
DOWN, PACKED = "layers.1.down.weight", "layers.1.packed.weight"


def prove(fn: Callable[..., Any]) -> foldproof.Verdict:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(vocab_size=150, num_hidden_layers=2, tie_word_embeddings=True, **SIZES)
    model, port = transformers.Qwen2ForCausalLM(config).eval(), Port(config).eval()
    with torch.no_grad():
        for x in model.parameters():  # biases and norms, too
            x.add_(torch.randn_like(x), alpha=0.05)
    return foldproof.prove(lambda x: model(input_ids=x, use_cache=False).logits, port, (TOKENS,), convert=fn)


def test_residues_of_large_weights_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[int] = []
    drawn: list[tuple[int, int]] = []
    store, whole = Memory.store, Matrix.whole

    def note_store(memory: Memory) -> None:
        stored.append(memory.like.numel())
        store(memory)

    def note_whole(matrix: Matrix, i: int) -> Tensor:
        drawn.append(matrix.shape)
        return whole(matrix, i)

    monkeypatch.setattr(Memory, "store", note_store)
    monkeypatch.setattr(Matrix, "whole", note_whole)
    verdict = prove(converted)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.all_parameters, verdict
    assert not stored and not drawn


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    made[DOWN] = made[DOWN].clone()
    made[DOWN][3, 5] *= 1.5
    return made


def swapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    rows = torch.arange(640)
    rows[7], rows[9] = 9, 7
    return {**made, PACKED: made[PACKED][rows]}


def transposed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    return {**made, "layers.1.out.weight": made["layers.1.out.weight"].t().contiguous()}


def of_another_layer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    return {**made, DOWN: made["layers.0.down.weight"]}


def moved_in_its_row(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    made[DOWN] = made[DOWN].clone()
    made[DOWN][3].copy_(made[DOWN][3].roll(1))
    return made


def gate_after_up(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    gate, up = made["layers.1.gate_and_up.weight"].chunk(2)
    return {**made, "layers.1.gate_and_up.weight": torch.cat([up, gate])}


@pytest.mark.parametrize(
    "fn", [scaled, swapped, transposed, of_another_layer, moved_in_its_row, gate_after_up], ids=lambda fn: fn.__name__
)
def test_one_wrong_weight_in_one_layer_is_refuted(fn: Callable[..., Any]) -> None:
    assert prove(fn).kind is Kind.REFUTED


def writes_on_shadows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    if isinstance(made[PACKED], Shadow):
        made[PACKED][5, 5] += 1
    return made


def keeps_and_changes(state: dict[str, Tensor], kept: dict[str, Tensor]) -> dict[str, Tensor]:
    made = converted(state)
    made[PACKED] = kept.setdefault(PACKED, made[PACKED].clone()).add_(0.5)
    return made


@pytest.mark.parametrize("fn", [writes_on_shadows, functools.partial(keeps_and_changes, kept={})])
def test_a_conversion_that_acts_otherwise_on_shadows_proves_nothing(fn: Callable[..., Any]) -> None:
    assert not prove(fn).ok
