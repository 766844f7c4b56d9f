"""The definitions of ONNX Runtime's own operators, and graphs that it optimizes, against its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foldproof.auditing.taps.onnx_runtime import optimize
from foldproof.onnx_graph import DEFINITIONS, NotTranslated, read_graph
from foldproof.onnx_graph.registry import MICROSOFT

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Level = onnxruntime.GraphOptimizationLevel


def model_of(operator: str, inputs: Sequence[Tensor | None], domain: str = MICROSOFT, **attributes: Any) -> Any:
    helper = onnx.helper
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(operator, names, ["y"], domain=domain, name="it", **attributes)
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.numpy().dtype), list(x.shape))
        for name, x in zip(names, inputs)
        if x is not None
    ]
    made = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([node], "one", given, made)
    versions = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9)


def run(model: Any, inputs: Sequence[Tensor], level: Any = Level.ORT_DISABLE_ALL) -> list[Tensor]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = dict(zip((x.name for x in session.get_inputs()), (x.numpy() for x in inputs)))
    return [torch.from_numpy(np.asarray(y)) for y in session.run(None, given)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape)


CASES: dict[str, tuple[str, list[Tensor | None], dict[str, Any]]] = {
    "Gelu": ("Gelu", [drawn(2, 3)], {}),
    "BiasGelu": ("BiasGelu", [drawn(2, 3), drawn(3)], {}),
    "FastGelu": ("FastGelu", [drawn(2, 3), drawn(3)], {}),
    "QuickGelu": ("QuickGelu", [drawn(2, 3)], {"alpha": 1.5}),
    "FusedMatMul": ("FusedMatMul", [drawn(2, 4, 3), drawn(2, 5, 4)], {"transA": 1, "transB": 1, "alpha": 0.25}),
    "FusedMatMul, batches": (
        "FusedMatMul",
        [drawn(4, 2, 3), drawn(5, 2, 4)],
        {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1},
    ),
    "FusedMatMul, batches of one": ("FusedMatMul", [drawn(4, 2, 3), drawn(2, 3, 4)], {"transBatchA": 1}),
    "FusedGemm": (
        "FusedGemm",
        [drawn(3, 2), drawn(4, 3), drawn(4)],
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0, "activation": "LeakyRelu", "activation_alpha": 0.2},
    ),
    "FusedConv, relu": (
        "FusedConv",
        [drawn(1, 2, 5, 5), drawn(3, 2, 3, 3), drawn(3)],
        {"activation": "Relu", "pads": [1, 0, 1, 2], "strides": [2, 1]},
    ),
    "FusedConv, clip": (
        "FusedConv",
        [drawn(1, 2, 5, 5), drawn(2, 1, 3, 3)],
        {"activation": "Clip", "activation_params": [0.0, 0.5], "group": 2},
    ),
    "SkipLayerNormalization": (
        "SkipLayerNormalization",
        [drawn(2, 3, 4), drawn(2, 3, 4), drawn(4), drawn(4), drawn(4)],
        {"epsilon": 1e-3},
    ),
    "SkipSimplifiedLayerNormalization": (
        "SkipSimplifiedLayerNormalization",
        [drawn(2, 3, 4), drawn(2, 3, 4), drawn(4)],
        {"epsilon": 1e-3},
    ),
    "MultiHeadAttention": (
        "MultiHeadAttention",
        [drawn(2, 3, 8), drawn(2, 5, 8), drawn(2, 5, 8), drawn(24), None, drawn(1, 2, 3, 5)],
        {"num_heads": 2},
    ),
    "Attention": ("Attention", [drawn(2, 3, 8), drawn(8, 24), drawn(24)], {"num_heads": 2}),
    "Attention, unidirectional": (
        "Attention",
        [drawn(2, 3, 8), drawn(8, 24), drawn(24)],
        {"num_heads": 2, "unidirectional": 1},
    ),
    "RotaryEmbedding": (
        "RotaryEmbedding",
        [drawn(2, 2, 3, 8), torch.tensor([[0, 1, 2], [1, 2, 3]]), drawn(6, 4), drawn(6, 4)],
        {},
    ),
    "RotaryEmbedding, interleaved": (
        "RotaryEmbedding",
        [drawn(2, 3, 16), torch.tensor([1]), drawn(6, 4), drawn(6, 4)],
        {"interleaved": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_of_the_runtime(case: str) -> None:
    operator, inputs, attributes = CASES[case]
    given = [x for x in inputs if x is not None]
    model = model_of(operator, inputs, **attributes)
    got = read_graph(model)(*given)
    torch.testing.assert_close(got, run(model, given)[0], rtol=1e-4, atol=1e-5)


def test_each_is_tested() -> None:
    tested = {operator for operator, _, _ in CASES.values()}
    same = {"TransposeMatMul", "QuantizeLinear", "DequantizeLinear"}  # of the definition of another one
    assert {name for domain, name in DEFINITIONS if domain == MICROSOFT} == tested | same


@pytest.mark.parametrize("to", ["float16", "float64", "int32", "int64", "uint8", "bool"])
def test_casts(to: str) -> None:
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to))
    x = torch.tensor([0.0, 1.6, 2.5, 200.0]) * (1 if to in ("uint8", "bool") else -1)
    model = model_of("Cast", [x], domain="", to=number)
    assert torch.equal(read_graph(model)(x), run(model, [x])[0])


class Net(nn.Module):
    """Convolutions of all kinds that ONNX Runtime keeps in blocks of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(32)
        self.deep, self.one = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 1)
        self.groups, self.each = nn.Conv2d(32, 32, 3, padding=1, groups=2), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.pool, self.mean, self.odd = nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(32, 20, 1)
        with torch.no_grad():
            self.norm.running_mean.normal_()  # type: ignore[union-attr]
            self.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            self.norm.weight.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.pool(torch.relu(self.stem(x))))
        x = torch.relu(self.norm(x)) + self.each(self.groups(x)).sigmoid()
        return torch.cat([self.odd(self.mean(x)), self.one(self.mean(x))], 1)


def test_channels_in_blocks_are_read_as_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x, path = Net().eval(), torch.randn(2, 3, 16, 16), tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), str(path), dynamo=True, verbose=False, optimize=False)
    result = optimize(path, Level.ORT_ENABLE_ALL).path
    made = {(node.domain, node.op_type) for node in onnx.load(str(result)).graph.node}
    if not any("nchwc" in domain for domain, _ in made):
        pytest.skip("ONNX Runtime keeps no channels in blocks on this machine")
    wanted = net(x)
    torch.testing.assert_close(read_graph(result)(x), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_defined_is_refused() -> None:
    with pytest.raises(NotTranslated, match=r"node it \(Unique\): the operator has no definition"):
        read_graph(model_of("Unique", [drawn(4)], domain=""))
    old = model_of("Relu", [drawn(4)], domain="")
    old.opset_import[0].version = 9
    with pytest.raises(NotTranslated, match="of version 9 of ONNX's operators; export it with version 13 or later"):
        read_graph(old)
