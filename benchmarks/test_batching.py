"""Parallel linears, fused or not, against eager, Inductor, its batch_linear, and concatenation by hand: in turns, with
one thread, as ratios of medians in one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from statistics import median
from time import process_time as clock  # other processes do not count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import foldproof
from zoo.architecture import Architecture, Family
from zoo.construct import tokens, transformer

ROUNDS = 21
ROUND_SECONDS = 1e-3
"""Smallest time of each side in each round."""

Run = Callable[[], Any]


class Parallel(nn.Module):
    """The sum of ``n`` rectified linear functions of one tensor, of K features each."""

    def __init__(self, n: int, features: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(features, features) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (torch.relu(part(x)) for part in self.parts)
        for other in others:
            first = first + other
        return first


class ByHand(nn.Module):
    """The same with weights concatenated by hand."""

    def __init__(self, model: Parallel) -> None:
        super().__init__()
        self.n = len(model.parts)
        features = model.parts[0].in_features
        self.whole = nn.Linear(features, features * self.n)
        self.whole.weight.copy_(torch.cat([part.weight for part in model.parts]))
        self.whole.bias.copy_(torch.cat([part.bias for part in model.parts]))

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x)
        size = self.whole.in_features
        first, *others = (torch.relu(whole[:, i * size : (i + 1) * size]) for i in range(self.n))
        for other in others:
            first = first + other
        return first


def compiled(model: nn.Module, x: Tensor, backend: str | Callable[..., Any] = "inductor", **config: Any) -> Run:
    """A run of compiled code. The model is traced, so that it has code of its own, the key of Dynamo's cache."""
    run = torch.compile(torch.fx.symbolic_trace(model), backend=backend, dynamic=False)
    with torch._inductor.config.patch(force_disable_caches=True, **config):
        run(x)
    return lambda: run(x)


def in_turns(benchmark: Any, runs: Mapping[str, Run]) -> dict[str, float]:
    """Median seconds of processor time of each side; every round runs all of them several times.

    Each side needs weights of its own, since weights read twice in a round would be in a cache more often.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    repeats = {}
    for name, run in runs.items():
        run()
        started = clock()
        run()
        repeats[name] = max(1, round(ROUND_SECONDS / (clock() - started)))

    order = list(runs.items())

    def one_round() -> None:
        order.append(order.pop(0))  # rotate, since the first side finds emptier caches
        for name, run in order:
            started = clock()
            for _ in range(repeats[name]):
                run()
            taken[name].append((clock() - started) / repeats[name])

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=2)
    return {name: median(seconds[2:]) for name, seconds in taken.items()}


@pytest.mark.parametrize("features", [256, 1024])
@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("n", [2, 3, 4, 8])
@torch.no_grad()
def test_parallel_linears(benchmark: Any, n: int, batch: int, features: int) -> None:
    """Fused over eager, and compiled by foldproof over Inductor: the target is at most 1, beyond noise."""
    from foldproof.backend import foldproof as backend

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = Parallel(n, features).eval(), torch.randn(batch, features)
    eager = torch.export.export(copy.deepcopy(model), (x,)).module()
    result = foldproof.fuse(copy.deepcopy(model), (x,), passes=["batch_linears"])
    fused = result.program.module()
    hand_eager = torch.export.export(ByHand(model), (x,)).module()
    counters.clear()
    batch_linear = compiled(copy.deepcopy(model), x, pre_grad_fusion_options={"batch_linear": {"min_fuse_set_size": 2}})
    assert counters["inductor"]["batch_linear"]
    found = in_turns(
        benchmark,
        {
            "eager": lambda: eager(x),
            "fused": lambda: fused(x),
            "by hand": lambda: hand_eager(x),
            "Inductor": compiled(copy.deepcopy(model), x),
            "batch_linear": batch_linear,
            "foldproof": compiled(copy.deepcopy(model), x, backend),
            "by hand, Inductor": compiled(ByHand(model), x),
        },
    )
    [told] = [f"batched, for {r.speed.before / r.speed.after:.2f}×" for r in result.rewrites if r.speed] or ["declined"]
    benchmark.extra_info |= {"foldproof's decision": told} | {
        f"{name} over {base}": round(found[name] / found[base], 2)
        for base, names in {
            "eager": ("fused", "by hand"),
            "Inductor": ("foldproof", "batch_linear", "by hand, Inductor"),
        }.items()
        for name in names
    }


BLOCKS = {
    "bert": transformer("BertModel", vocab_size=99, num_hidden_layers=2, hidden_size=384, num_attention_heads=6),
    "llama": transformer(
        "LlamaModel",
        vocab_size=99,
        num_hidden_layers=2,
        hidden_size=512,
        intermediate_size=1376,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
}


@pytest.mark.parametrize("length", [1, 64])
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_blocks(benchmark: Any, name: str, length: int) -> None:
    """Whole layers of BERT and Llama: queries, keys and values (of uneven sizes), gates. The target is at most 1."""
    from foldproof.backend import foldproof as backend

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sample = Architecture(name, Family.HEAD, BLOCKS[name], tokens(length)).build()

    def program() -> torch.export.ExportedProgram:
        return torch.export.export(copy.deepcopy(sample.model), sample.inputs)

    result = foldproof.fuse(program(), sample.inputs, passes=["batch_linears"], prove=False)
    runs: dict[str, Run] = {}
    for side, one in {"eager": program(), "fused": result.program}.items():
        module = one.module()
        runs[side] = lambda module=module: module(*sample.inputs)  # type: ignore[misc]
    for side, by in {"Inductor": "inductor", "foldproof": backend}.items():
        run = torch.compile(program().module(), backend=by, dynamic=False)
        run(*sample.inputs)
        runs[side] = lambda run=run: run(*sample.inputs)  # type: ignore[misc]
    found = in_turns(benchmark, runs)
    benchmark.extra_info |= {
        "batched": f"{len(result.rewrites)} of {len(result.rewrites) + len(result.declined)} groups",
        "fused over eager": round(found["fused"] / found["eager"], 2),
        "foldproof over Inductor": round(found["foldproof"] / found["Inductor"], 2),
    }
