"""Language models of `transformers`, small and with random weights: norms, rotary tables, masks and scales go."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from fusion_programs import FORMS, largest_error, run
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import foldproof
from foldproof import FuseResult, Kind

LAYERS = 2
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
NAMES = ("Llama", "Qwen2", "Gemma", "Mistral", "Phi3", "Qwen3")


class Logits(nn.Module):
    """A model without its cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits


IDS = (torch.arange(8).reshape(1, 8),)


def make(name: str, attention: str = "sdpa", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **{"tie_word_embeddings": False, **settings})
    config._attn_implementation = attention
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # norms have other weights than 1
    return Logits(model)


@cache
def export(name: str, attention: str = "sdpa") -> ExportedProgram:
    return torch.export.export(make(name, attention), IDS, strict=False)


def count(result: FuseResult, *kinds: str) -> int:
    return sum(n for name, n in result.operators_after.items() if name.split(".")[-2:][0] in kinds)


def multiplications_by_constants(result: FuseResult) -> list[str]:
    """Names of the nodes that multiply by a parameter, such as the weight of a norm."""
    return [
        node.name
        for node in result.program.graph.nodes
        if "aten.mul" in str(node.target) and any(x.name.startswith("p_") for x in node.all_input_nodes)
    ]


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
@pytest.mark.parametrize("name", NAMES)
def test_only_products_attention_and_statistics_are_left(name: str, form: str) -> None:
    program = FORMS[form](export(name))  # attention is decomposed in core ATen
    result = foldproof.fuse(program, IDS)
    assert result.verdict.kind is Kind.PROVED and result.declined == ()
    assert multiplications_by_constants(result) == []
    assert count(result, "cos", "sin", "arange", "cumsum", "le", "neg", "to", "type_as", "alias") == (
        1 if name == "Gemma" and form == "training IR" else 0  # which converts a number
    )
    assert not any("wrap_with_set_grad_enabled" in operator for operator in result.operators_after)
    assert largest_error(run(program, IDS), run(result.program, IDS)) < 1e-5  # type: ignore[arg-type]


def test_the_scale_of_eager_attention_goes_into_a_factor_of_the_queries() -> None:
    result = foldproof.fuse(export("Qwen2", "eager"), IDS)
    assert result.verdict.kind is Kind.PROVED
    numbers = [
        node
        for node in result.program.graph.nodes
        if "aten.mul" in str(node.target) and not isinstance(node.args[1], torch.fx.Node)
    ]
    assert numbers == []
    assert largest_error(run(export("Qwen2", "eager"), IDS), run(result.program, IDS)) < 1e-5  # type: ignore[arg-type]


def test_the_last_norm_stays_before_a_head_that_shares_the_table() -> None:
    """A head of its own would take more memory; the reason says how much, and nothing else stays."""
    model = make("Llama", tie_word_embeddings=True)
    result = foldproof.fuse(model, IDS)
    [declined] = result.declined
    assert "more bytes of weights" in declined.reason and declined.hint == "untie the weights"
    assert result.verdict.kind is Kind.PROVED


def test_of_a_dynamic_length() -> None:
    """Tables of positions depend on the length, and are computed at each call; norms are folded."""
    model = make("Llama")
    program = torch.export.export(model, IDS, dynamic_shapes={"ids": {1: Dim("length", min=2, max=16)}}, strict=False)
    result = foldproof.fuse(program, IDS)
    assert result.verdict.kind is Kind.PROVED and multiplications_by_constants(result) == []
    for length in (3, 11):
        ids = (torch.arange(length).reshape(1, length),)
        assert largest_error([model(*ids)], run(result.program, ids)) < 1e-5  # type: ignore[arg-type]


def test_the_graph_module_of_a_program() -> None:
    result = foldproof.fuse(export("Llama").module(), IDS)
    assert result.verdict.kind is Kind.PROVED and count(result, "cos", "sin") == 0
