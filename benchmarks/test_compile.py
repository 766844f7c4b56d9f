"""``torch.compile(backend="foldproof")``: what it costs to compute constants at each call, and what folding gains.

In turns, one thread, ratios of medians in one run: against Inductor, and against the same code with its constants held.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.test_batching import Run, in_turns
from foldproof import backend
from zoo.architecture import Architecture, Family
from zoo.construct import image, tokens, transformer

RESNET = transformer(
    "ResNetForImageClassification", depths=[2] * 4, hidden_sizes=[64, 128, 256, 512], layer_type="basic"
)
BERT = transformer("BertModel", vocab_size=99, num_hidden_layers=2, hidden_size=384, num_attention_heads=6)
MODELS = {
    "resnet, 1 image": (RESNET, image(128), 1),
    "resnet, 8 images": (RESNET, image(128), 8),
    "bert, 64 tokens": (BERT, tokens(64), 1),
    "bert, 1024 tokens": (BERT, tokens(64), 16),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_compile(benchmark: Any, name: str) -> None:
    """The target is at most 1.01 over code that holds its constants."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()
    config, inputs, batch = MODELS[name]
    sample = Architecture(name, Family.HEAD, config, inputs).build()
    given = [torch.cat([x] * batch) for x in sample.inputs]
    found: list[backend.Rewritten | None] = []
    original = backend.rewrite_graph

    def noted(*arguments: Any) -> backend.Rewritten | None:
        found.append(original(*arguments))
        return found[-1]

    def run(by: Any) -> Run:
        code = torch.compile(
            torch.export.export(copy.deepcopy(sample.model), tuple(given)).module(), backend=by, dynamic=False
        )
        code(*given)
        return lambda: code(*given)

    runs = {"Inductor": run("inductor")}
    with mock.patch.object(backend, "rewrite_graph", noted):
        runs["computed"] = run(backend.foldproof)
        with mock.patch.object(backend, "_compute_constants", lambda *_: 0):
            runs["held"] = run(backend.foldproof)
    taken = in_turns(benchmark, runs)
    benchmark.extra_info |= {
        "constants": 0 if found[0] is None else found[0].made,
        "foldproof over Inductor": round(taken["computed"] / taken["Inductor"], 3),
        "computed over held": round(taken["computed"] / taken["held"], 4),
    }
