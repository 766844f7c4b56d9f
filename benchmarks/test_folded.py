"""Folded against unfolded programs in four runtimes: in turns, with one thread, as a ratio of medians."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

import foldproof
from zoo.architecture import Architecture, Family, Inputs
from zoo.construct import image, normal, tokens, transformer

MODELS = {
    "resnet": (
        transformer(
            "ResNetForImageClassification", depths=[2] * 4, hidden_sizes=[64, 128, 256, 512], layer_type="basic"
        ),
        image(128),
    ),
    "mobilenet_v2": (transformer("MobileNetV2ForImageClassification"), image(128)),
    "levit": (transformer("LevitForImageClassification"), image(224)),
    "patchtst": (
        transformer(
            "PatchTSTForPrediction", num_input_channels=7, context_length=512, patch_length=16, patch_stride=16
        ),
        normal(2, 512, 7),
    ),
    "bert": (
        transformer("BertModel", vocab_size=99, num_hidden_layers=4, hidden_size=384, num_attention_heads=6),
        tokens(64),
    ),
}
"""Models in deployed sizes, with random weights."""

ROUNDS = 15

Run = Callable[[], Any]


def eager(program: ExportedProgram, inputs: Inputs) -> Run:
    module = program.module()
    return lambda: module(*inputs)


def compiled(program: ExportedProgram, inputs: Inputs) -> Run:
    module = torch.compile(program.module())
    module(*inputs)
    return lambda: module(*inputs)


def frozen(program: ExportedProgram, inputs: Inputs) -> Run:
    with torch._inductor.config.patch(freezing=True):
        return compiled(program, inputs)


def xnnpack(program: ExportedProgram, inputs: Inputs) -> Run:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    buffer = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
    loaded = Runtime.get().load_program(buffer)
    method = loaded.load_method("forward")
    given = [x.contiguous() for x in inputs]

    def run(keep: Any = (buffer, loaded)) -> Any:  # the method does not keep them alive
        return method.execute(given)

    run()
    return run


RUNTIMES = {"eager": eager, "compile": compiled, "freezing": frozen, "xnnpack": xnnpack}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_folded(benchmark: Any, name: str, runtime: str) -> None:
    """The target is at most 1: folding must not make a program slower."""
    torch.set_num_threads(1)
    torch._dynamo.reset()  # not between the two: it would discard the first, and its freezing
    sample = Architecture(name, Family.HEAD, *MODELS[name]).build()
    program = torch.export.export(sample.model, sample.inputs)
    result = foldproof.fuse(program, sample.inputs, prove=False)
    runs = [RUNTIMES[runtime](p, sample.inputs) for p in (program, result.program)]
    taken: tuple[list[float], list[float]] = ([], [])

    def in_turns() -> None:
        for run, seconds in zip(runs, taken):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)

    benchmark.pedantic(in_turns, rounds=ROUNDS, warmup_rounds=2)
    before, after = (1e3 * median(seconds[2:]) for seconds in taken)
    operators = [sum(count.values()) for count in (result.operators_before, result.operators_after)]
    benchmark.extra_info |= {
        "folded over unfolded": round(after / before, 3),
        "ms unfolded": round(before, 2),
        "operators": f"{operators[0]} → {operators[1]}",
    }
