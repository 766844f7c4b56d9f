"""The definitions of OpenVINO's operations, against OpenVINO's results on the CPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foldproof.onnx_graph import DEFINITIONS, NotTranslated
from foldproof.openvino_graph import read_compiled, read_model
from foldproof.openvino_graph.definitions import DOMAIN

ov = pytest.importorskip("openvino")
opset = pytest.importorskip("openvino.opset14")
opset1 = pytest.importorskip("openvino.opset1")
opset15 = pytest.importorskip("openvino.opset15")
NodeFactory = pytest.importorskip("openvino.utils.node_factory").NodeFactory

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "CACHE_ENCRYPTION_CALLBACKS": [lambda x: x, lambda x: x]}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def ints(*numbers: int) -> Any:
    return opset.constant(list(numbers), ov.Type.i64)


def number(x: float) -> Any:
    return opset.constant(x, ov.Type.f32)


def ones(rank: int) -> dict[str, list[int]]:
    return {"strides": [1] * rank, "pads_begin": [1] * rank, "pads_end": [0] * rank, "dilations": [1] * rank}


X, Y, IMAGE = drawn(2, 3, 4), drawn(2, 3, 4), drawn(1, 4, 6, 6)
SIGNED = {"Add", "Divide", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum", "Mod"}
SIGNED |= {"Multiply", "NotEqual", "SquaredDifference", "Subtract", "FloorMod"}
ONE = {"Abs", "Ceiling", "Cos", "Cosh", "Erf", "Exp", "Floor", "HSwish", "HSigmoid", "Mish", "Negative", "Sigmoid"}
ONE |= {"Sign", "Sin", "Sinh", "SoftPlus", "SoftSign", "Tanh", "Atan", "Tan", "Asinh", "IsFinite", "Round"}
LOGICAL = {"LogicalAnd", "LogicalOr", "LogicalXor"}
BITS = {"BitwiseAnd", "BitwiseOr", "BitwiseXor"}
MADE = {
    "HSwish": "hswish",
    "HSigmoid": "hsigmoid",
    "SoftPlus": "softplus",
    "SoftSign": "softsign",
    "FloorMod": "floor_mod",
}


def snake(name: str) -> str:
    return MADE.get(name) or "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def reduced(name: str, x: Any) -> Any:
    return getattr(opset, name)(x, ints(0, 2), True)


Case = tuple[list[Tensor], Callable[..., Any]]
CASES: dict[str, Case] = {
    **{name: ([X], getattr(opset, snake(name))) for name in sorted(ONE)},
    **{name: ([X, Y], getattr(opset, snake(name))) for name in sorted(SIGNED)},
    **{name: ([X > 0, Y > 0], getattr(opset, snake(name))) for name in sorted(LOGICAL)},
    **{name: ([X.mul(9).int(), Y.mul(9).int()], getattr(opset, snake(name))) for name in sorted(BITS)},
    "LogicalNot": ([X > 0], opset.logical_not),
    "BitwiseNot": ([X.mul(9).int()], opset.bitwise_not),
    "Acos": ([X.tanh()], opset.acos),
    "Acosh": ([X.abs() + 1], opset.acosh),
    "Atanh": ([X.tanh()], opset.atanh),
    "IsNaN": ([torch.tensor([1.0, math.nan, math.inf])], opset.is_nan),
    "Roll": ([X], lambda x: opset.roll(x, ints(1, 2), ints(0, -1))),
    "Einsum": ([X, drawn(2, 4, 5)], lambda x, y: opset.einsum([x, y], "abc,acd->abd")),
    "AdaptiveAvgPool": ([IMAGE], lambda x: opset.adaptive_avg_pool(x, ints(4, 2))),
    "TopK": ([X], lambda x: opset.topk(x, opset.constant(2, ov.Type.i64), 1, "max", "value").output(0)),
    "Asin": ([X.tanh()], opset.asin),
    "Log": ([X.abs()], opset.log),
    "Sqrt": ([X.abs()], opset.sqrt),
    "ReLU": ([X], opset.relu),
    "Power": ([X.abs(), Y], opset.power),
    "Clamp": ([X], lambda x: opset.clamp(x, -0.5, 1.0)),
    "Elu": ([X], lambda x: opset.elu(x, 0.7)),
    "Gelu": ([X], lambda x: opset.gelu(x, "tanh")),
    "Swish": ([X], lambda x: opset.swish(x, opset.constant(1.5, ov.Type.f32))),
    "PReLU": ([X, drawn(3).abs()], opset.prelu),
    "HardSigmoid": ([X], lambda x: opset.hard_sigmoid(x, number(0.3), number(0.4))),
    "Selu": ([X], lambda x: opset.selu(x, number(1.67), number(1.05))),
    "Select": ([X > 0, X, Y], opset.select),
    "Convert": ([X * 3], lambda x: opset.convert(x, "i32")),
    "ConvertLike": ([X * 3, torch.tensor([1])], opset.convert_like),
    "MatMul": ([X, drawn(2, 5, 4)], lambda x, y: opset.matmul(x, y, False, True)),
    "Convolution": ([IMAGE, drawn(3, 4, 3, 3)], lambda x, w: opset.convolution(x, w, **ones(2))),
    "GroupConvolution": ([IMAGE, drawn(2, 3, 2, 3, 3)], lambda x, w: opset.group_convolution(x, w, **ones(2))),
    "ConvolutionBackpropData": (
        [IMAGE, drawn(4, 3, 3, 3)],
        lambda x, w: opset.convolution_backprop_data(x, w, strides=[2, 2], pads_begin=[1, 0], pads_end=[0, 1]),
    ),
    "GroupConvolutionBackpropData": (
        [IMAGE, drawn(2, 2, 3, 3, 3)],
        lambda x, w: opset.group_convolution_backprop_data(
            x, w, strides=[2, 2], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1]
        ),
    ),
    "MaxPool": (
        [IMAGE],
        lambda x: opset.max_pool(x, [2, 2], [1, 1], [0, 1], [1, 0], [3, 3], "floor", "explicit", "i64", 2).output(0),
    ),
    "AvgPool": ([IMAGE], lambda x: opset.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], True)),
    "ScaledDotProductAttention": (
        [drawn(1, 2, 3, 4), drawn(1, 2, 3, 4), drawn(1, 2, 3, 4)],
        lambda q, k, v: opset.scaled_dot_product_attention(q, k, v, causal=True),
    ),
    "BatchNormInference": (
        [IMAGE, drawn(4), drawn(4), drawn(4), drawn(4).abs()],
        lambda x, g, b, m, v: opset.batch_norm_inference(x, g, b, m, v, 0.01),
    ),
    "MVN": ([X], lambda x: opset.mvn(x, ints(1, 2), True, 0.1, "inside_sqrt")),
    "GroupNormalization": ([IMAGE, drawn(4), drawn(4)], lambda x, s, b: opset.group_normalization(x, s, b, 2, 0.01)),
    "SoftMax": ([X], lambda x: opset.softmax(x, 1)),
    "LogSoftmax": ([X], lambda x: opset.log_softmax(x, -1)),
    **{
        name: ([X], functools.partial(reduced, snake(name)))
        for name in ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
    },
    **{name: ([X > 0], functools.partial(reduced, snake(name))) for name in ("ReduceLogicalOr", "ReduceLogicalAnd")},
    "CumSum": ([X], lambda x: opset.cumsum(x, opset.constant(1, ov.Type.i64), True, True)),
    "ShapeOf": ([X], lambda x: opset.shape_of(x, "i32")),
    "Reshape": ([X], lambda x: opset.reshape(x, ints(0, -1), True)),
    "Transpose": ([X], lambda x: opset.transpose(x, ints(2, 0, 1))),
    "Squeeze": ([drawn(2, 1, 3)], lambda x: opset.squeeze(x, ints(1))),
    "Unsqueeze": ([X], lambda x: opset.unsqueeze(x, ints(0, 4))),
    "Concat": ([X, Y], lambda x, y: opset.concat([x, y], -1)),
    "Split": ([X], lambda x: opset.split(x, opset.constant(2, ov.Type.i64), 2).output(1)),
    "VariadicSplit": (
        [X],
        lambda x: opset.variadic_split(x, opset.constant(2, ov.Type.i64), ints(1, -1)).output(1),
    ),
    "Slice": ([X], lambda x: opset.slice(x, ints(1), ints(100), ints(2), ints(2))),
    "Gather": ([X, torch.tensor([2, -1])], lambda x, at: opset.gather(x, at, opset.constant(1, ov.Type.i64))),
    "GatherElements": (
        [X, torch.tensor([[[1, 0, 2, 0]], [[0, 2, 1, 1]]])],
        lambda x, at: opset.gather_elements(x, at, 1),
    ),
    "GatherND": ([X, torch.tensor([[1, 2], [0, 0]])], opset.gather_nd),
    "ScatterNDUpdate": ([X, torch.tensor([[1, 2], [0, 0]]), drawn(2, 4)], opset.scatter_nd_update),
    "Broadcast": ([drawn(3, 1)], lambda x: opset.broadcast(x, ints(2, 1, 4), broadcast_spec="BIDIRECTIONAL")),
    "Tile": ([X], lambda x: opset.tile(x, ints(1, 2, 3))),
    "Pad": ([X], lambda x: opset.pad(x, ints(0, 1, 2), ints(1, 0, 1), "edge")),
    "Range": (
        [torch.tensor(1), torch.tensor(7), torch.tensor(2)],
        lambda a, b, c: opset.range(a, b, c, "i64"),
    ),
    "GridSample": (
        [IMAGE, drawn(1, 3, 5, 2)],
        lambda x, grid: opset.grid_sample(x, grid, {"mode": "bilinear", "padding_mode": "border"}),
    ),
    "Col2Im": ([drawn(1, 12, 9)], lambda x: opset15.col2im(x, ints(6, 6), ints(2, 2), [2, 2])),
    "Interpolate": (
        [IMAGE],
        lambda x: opset.interpolate(
            x,
            ints(12, 3),
            "linear_onnx",
            "sizes",
            coordinate_transformation_mode="pytorch_half_pixel",
            axes=ints(2, 3),
        ),
    ),
}
OF_PLUGIN = {"FullyConnected", "LeakyRelu", "PowerStatic", "RMS", "SwishCPU"}
"""Operations that only the CPU plugin makes; audits of models test them."""


def model_of(case: Case) -> Any:
    given, make = case
    types = {
        torch.float32: ov.Type.f32,
        torch.int32: ov.Type.i32,
        torch.int64: ov.Type.i64,
        torch.bool: ov.Type.boolean,
    }
    inputs = [opset.parameter(list(x.shape), types[x.dtype], f"x{i}") for i, x in enumerate(given)]
    return ov.Model([make(*inputs)], inputs)


def check(case: Case, folder: Path) -> None:
    """Compare what is read from a file with OpenVINO's results."""
    given, _ = case
    model = model_of(case)
    compiled = ov.compile_model(model, "CPU", SETTINGS)
    wanted = torch.from_numpy(compiled([x.numpy() for x in given])[0].copy())
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (got,) = read_model(folder / "model.xml")(*given)
    assert got.dtype is wanted.dtype
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_operations(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path)
    assert f'type="{name}"' in (tmp_path / "model.xml").read_text()


def windows_along(rank: int) -> dict[str, Case]:
    image, attributes, kernel = drawn(1, 4, *[6] * rank), ones(rank), [3] * rank
    steps = {"strides": [2] * rank, "pads_begin": [1] * rank, "pads_end": [0] * rank}
    return {
        "Convolution": ([image, drawn(3, 4, *kernel)], lambda x, w: opset.convolution(x, w, **attributes)),
        "GroupConvolution": (
            [image, drawn(2, 3, 2, *kernel)],
            lambda x, w: opset.group_convolution(x, w, **attributes),
        ),
        "ConvolutionBackpropData": (
            [image, drawn(4, 3, *kernel)],
            lambda x, w: opset.convolution_backprop_data(x, w, **steps),
        ),
        "MaxPool": (
            [image],
            lambda x: opset.max_pool(
                x, [2] * rank, [1] * rank, [0] * rank, [1] * rank, kernel, "floor", "explicit", "i64", 2
            ).output(0),
        ),
        "AvgPool": ([image], lambda x: opset.avg_pool(x, [2] * rank, [1] * rank, [1] * rank, kernel, True)),
    }


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", windows_along(1))
def test_windows_along_other_numbers_of_dimensions(name: str, rank: int, tmp_path: Path) -> None:
    check(windows_along(rank)[name], tmp_path)


def with_four_inputs(mode: str) -> Callable[..., Any]:
    """The fourth version of the operation has sizes and scales; ``mode`` tells which count."""
    attributes = {
        "mode": "linear_onnx",
        "shape_calculation_mode": mode,
        "coordinate_transformation_mode": "pytorch_half_pixel",
        "pads_begin": [0] * 4,
        "pads_end": [0] * 4,
    }
    scales = opset.constant([2.0, 0.5], ov.Type.f32)

    def make(x: Any) -> Any:
        return NodeFactory("opset4").create("Interpolate", [x, ints(9, 2), scales, ints(2, 3)], attributes)

    return make


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize(("mode", "sort"), [("max", "value"), ("min", "value"), ("max", "index")])
def test_topk(mode: str, sort: str, output: int, tmp_path: Path) -> None:
    count = opset.constant(2, ov.Type.i64)
    check(([X], lambda x: opset.topk(x, count, 2, mode, sort, "i64").output(output)), tmp_path)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding: str, corners: bool, tmp_path: Path) -> None:
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    check(([IMAGE, drawn(1, 3, 5, 2)], lambda x, grid: opset.grid_sample(x, grid, attributes)), tmp_path)


INTERPOLATED: dict[str, Callable[..., Any]] = {
    "scales": lambda x: opset.interpolate(
        x,
        opset.constant([2.5, 0.5], ov.Type.f32),
        "linear_onnx",
        "scales",
        coordinate_transformation_mode="align_corners",
        axes=ints(2, 3),
    ),
    "a scale": lambda x: opset.interpolate(
        x,
        opset.constant([2.0], ov.Type.f32),
        "nearest",
        "scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=ints(2),
    ),
    "four inputs, by sizes": with_four_inputs("sizes"),
    "four inputs, by scales": with_four_inputs("scales"),
}


@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolate(name: str, tmp_path: Path) -> None:
    check(([IMAGE], INTERPOLATED[name]), tmp_path)


@pytest.mark.parametrize("numbers", [(1, 7, 2), (1.0, 2.2, 0.5)])
def test_the_first_version_of_range(numbers: tuple[float, ...], tmp_path: Path) -> None:
    """It has no type of its own, but that of its inputs."""
    check(([torch.tensor(x) for x in numbers], opset1.range), tmp_path)


def test_each_is_tested() -> None:
    assert {name for domain, name in DEFINITIONS if domain == DOMAIN} == {*CASES} | OF_PLUGIN


def test_a_compiled_graph_is_read() -> None:
    given = [X, drawn(5, 4)]
    weight = opset.constant(given[1].numpy())
    x = opset.parameter([2, 3, 4], ov.Type.f32, "x")
    leaky = opset.prelu(opset.matmul(x, weight, False, True), opset.constant([0.1], ov.Type.f32))
    compiled = ov.compile_model(
        ov.Model([opset.swish(opset.power(leaky, opset.constant(2.0, ov.Type.f32)))], [x]), "CPU", SETTINGS
    )
    exported = compiled.export_model()
    graph = read_compiled(exported if isinstance(exported, bytes) else exported.read())
    called = {getattr(node.target, "__name__", "") for node in graph.graph.nodes}
    assert "fully_connected" in called
    torch.testing.assert_close(graph(X)[0], torch.from_numpy(compiled([X.numpy()])[0]), rtol=1e-4, atol=1e-5)


def test_what_is_not_defined_is_refused(tmp_path: Path) -> None:
    x = opset.parameter([4], ov.Type.f32, "x")
    ov.save_model(ov.Model([opset.unique(x).output(0)], [x]), tmp_path / "model.xml")
    with pytest.raises(NotTranslated, match=r"\(Unique\): the operation has no definition"):
        read_model(tmp_path / "model.xml")
    with pytest.raises(NotTranslated, match="in a format that is not known"):
        read_compiled(b"something")
