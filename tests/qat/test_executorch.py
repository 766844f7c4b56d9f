"""Programs that crashed ExecuTorch's lowering run in its runtime after folding, before lowering or by a pass in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram, export

import foldproof
from foldproof.qat import executorch_pass
from tests.qat.qat_programs import made

exir = pytest.importorskip("executorch.exir")

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: E402
from executorch.runtime import Runtime  # noqa: E402


@pytest.fixture(scope="module")
def survivor() -> tuple[ExportedProgram, Tensor]:
    module, x = made("B per channel", "conv2d, relu")
    return export(module, (x,)), x


def lowered(program: ExportedProgram, passes: Any = None) -> Any:
    return exir.to_edge_transform_and_lower(program, transform_passes=passes, partitioner=[XnnpackPartitioner()])


def test_it_crashes_unfolded(survivor: Any) -> None:
    program, _ = survivor
    with pytest.raises(RuntimeError, match="Missing out variants: {'quantized_decomposed::dequantize_per_channel'}"):
        lowered(program).to_executorch()


@pytest.mark.parametrize("when", ["before lowering", "transform_passes", "transform"])
def test_it_runs_folded(when: str, survivor: Any) -> None:
    program, x = survivor
    result = foldproof.fold_qat(program, (x,), quantize_bias=False)  # XNNPACK quantizes biases itself
    fold = executorch_pass(quantize_bias=False)
    if when == "before lowering":
        edge = lowered(result.program)
    elif when == "transform_passes":
        edge = lowered(program, [fold])
    else:
        edge = exir.to_edge(program).transform([fold]).to_backend(XnnpackPartitioner())
    if when != "before lowering":
        assert len(fold.result.folded) == 1 and not fold.result.declined
    calls = [n.target for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    assert ["delegate" in str(t) for t in calls] == [True, False], "XNNPACK takes it all, and a result is got"
    buffer = edge.to_executorch().buffer
    [out] = Runtime.get().load_program(buffer).load_method("forward").execute([x])
    with torch.no_grad():
        expected = result.program.module()(x)
    step = next(n.args[1] for n in reversed(result.program.graph.nodes) if "dequantize_per_tensor" in str(n.target))
    assert float((out - expected).abs().max()) <= 1.01 * step, "a rounding that goes the other way, at most"
    assert float((out != expected).double().mean()) < 0.02
