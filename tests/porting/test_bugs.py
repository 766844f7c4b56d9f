"""Thirteen bugs of ports that people reported, each in one port: REFUTED at its module; the right port is proved."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

import foldproof
from foldproof import Kind
from tests.porting.decoders import SIZE, TOKENS, WIDTH, Choices, Port, Reference, convert

RIGHT = Choices()
ATTENTION = ("layers.0.attention", "h.0.mixer")
BUGS = {
    # The weights of Meta's layout in code that turns halves (huggingface/transformers#25199, TinyLlama#24).
    "rotary layout": (replace(RIGHT, pairs=False), ATTENTION),
    # Gemma multiplies embeddings by the root of the width (marin-community/levanter#978).
    "scale of embeddings": (replace(RIGHT, embedding_scale=1.0), ("embed", "wte")),
    # 1e-6 for 1e-5 (huggingface/candle#271).
    "epsilon of a norm": (replace(RIGHT, epsilon=1e-6), ("layers.0.input_norm", "h.0.ln_1")),
    # The exact GELU for its approximation (vllm-project/vllm#3411).
    "variant of gelu": (replace(RIGHT, gelu="none"), ("layers.0.mlp", "h.0.mlp")),
    # Positions from the row of the padding (huggingface/sentence-transformers#3879).
    "offset of positions": (replace(RIGHT, offset=1), ("positions", "wpe")),
    # A packed weight that is cut in three, or by heads (lablup/mlxcel#928).
    "order of q, k and v": (replace(RIGHT, packed_by_head=True), ATTENTION),
    # The biases of Qwen 2 (sbryngelson/ANEForge#253).
    "missing bias": (replace(RIGHT, bias=False), ATTENTION),
    # The root of width over heads, where heads have a size of their own (ggml-org/llama.cpp#8444).
    "scale of the softmax": (replace(RIGHT, scale=(SIZE + 0.5) ** -0.5), ATTENTION),
    # A checkpoint with two matrices, tied by the code that loads it (huggingface/transformers#42612).
    "tied weights": (replace(RIGHT, tied=True), ("embed", "wte")),
    # A window of so many tokens, or so many before this one (huggingface/transformers#39408).
    "sliding window": (replace(RIGHT, window=4), ATTENTION),
    # Caps that fused attention drops, or that nobody reads (vllm-project/vllm-metal#665).
    "soft cap of logits": (replace(RIGHT, cap=None), ("the whole model", "the whole model")),
    # Heads in groups: 0 0 1 1, or 0 1 0 1 (onnx/onnx#7274, apple/axlearn#842).
    "repeated heads": (replace(RIGHT, tiled=True), ATTENTION),
    # Norms before, or after (OPT-350m: huggingface/transformers#17088).
    "place of the norm": (replace(RIGHT, norm_first=False), ("layers.0", "h.0")),
}


@functools.cache
def reference() -> Reference:
    torch.manual_seed(0)
    return Reference().eval()


def proved(choices: Choices) -> foldproof.Verdict:
    return foldproof.prove(reference(), Port(choices).eval(), (TOKENS,), convert=convert)


def test_the_right_port() -> None:
    verdict = proved(RIGHT)
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert verdict.claim is not None and verdict.claim.all_parameters
    assert len(BUGS) == 13 and WIDTH != SIZE


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_refuted_at_its_module(bug: str) -> None:
    choices, (ours, theirs) = BUGS[bug]
    verdict = proved(choices)
    assert verdict.kind is Kind.REFUTED and verdict.counterexample is not None, verdict
    assert verdict.difference is not None and verdict.difference.after is not None, verdict
    assert (verdict.difference.node, verdict.difference.after.node) == (ours, theirs), verdict


def test_a_forgotten_permutation() -> None:
    """The conversion keeps the halves of each head, and the port turns pairs."""
    halves = functools.partial(convert, pairs=False)
    verdict = foldproof.prove(reference(), Port(RIGHT).eval(), (TOKENS,), convert=halves)
    assert verdict.kind is Kind.REFUTED and verdict.difference is not None and verdict.difference.after is not None
    assert (verdict.difference.node, verdict.difference.after.node) == ATTENTION, verdict
    turned = foldproof.prove(reference(), Port(replace(RIGHT, pairs=False)).eval(), (TOKENS,), convert=halves)
    assert turned.kind in (Kind.PROVED, Kind.PROVED_WITHIN), turned
