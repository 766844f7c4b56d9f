"""ONNX's Range: its elements, and their number, which rounding does not move."""

from __future__ import annotations

import pytest
import torch

from foldproof.onnx_graph.shapes import arange
from foldproof.rounding.constant_noise import ConstantNoise

RANGES = [
    (0.0, 8.0, 1.0),
    (0.0, 1.0, 0.25),
    (3.0, -2.0, -1.5),
    (0.0, 1.0, 0.1),
    (5.0, 5.0, 1.0),
    (5.0, 1.0, 1.0),
    (0, 10, 3),
    (10, -1, -4),
]


@pytest.mark.parametrize("given", RANGES)
def test_it_is_that_of_onnx_runtime(given: tuple[float, float, float]) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper = onnx.helper
    kind = onnx.TensorProto.INT64 if isinstance(given[0], int) else onnx.TensorProto.FLOAT
    operands = [torch.tensor(x) for x in given]
    inputs = [helper.make_tensor_value_info(name, kind, []) for name in "sld"]
    graph = helper.make_graph(
        [helper.make_node("Range", ["s", "l", "d"], ["y"])],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", kind, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [wanted] = session.run(None, {name: x.numpy() for name, x in zip("sld", operands)})
    got = arange(*operands)
    assert got.dtype is operands[0].dtype
    torch.testing.assert_close(got, torch.from_numpy(wanted))


def test_rounding_moves_no_number_of_elements() -> None:
    for seed in range(8):
        with ConstantNoise(torch.Generator().manual_seed(seed)):
            assert arange(torch.tensor(0.0), torch.tensor(8.0), torch.tensor(1.0)).shape == (8,)
