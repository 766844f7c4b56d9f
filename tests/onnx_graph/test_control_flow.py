"""Choices, loops, sequences and recurrent layers of ONNX: exported models, and ONNX Runtime's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import foldproof
from foldproof import Kind
from foldproof.onnx_graph import NotTranslated, read_graph

from .test_runtime import model_of, run

onnx = pytest.importorskip("onnx")


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)


class Choice(Layers):
    def forward(self, x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: self.one(x).relu(), lambda x: self.other(x).sigmoid(), (x,))


class Trips(Layers):
    def forward(self, x: Tensor) -> Any:
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, torch.tanh(self.one(x))), (torch.tensor(0), x))


class Steps(Layers):
    def forward(self, x: Tensor) -> Any:
        def step(c: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            new = torch.tanh(self.one(c) + x)
            return new, new * 2

        return scan(step, torch.zeros(4), x)


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)[0]
        return out


MODELS: dict[str, Callable[[], nn.Module]] = {
    "If": Choice,
    "Loop": Trips,
    "Scan": Steps,
    "LSTM": lambda: Recurrent(nn.LSTM(4, 3, bidirectional=True)),
    "GRU": lambda: Recurrent(nn.GRU(4, 3)),
}
X = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0)) + 1


def inputs(operator: str) -> Tensor:
    return X if operator in ("LSTM", "GRU") else X[:, 0].contiguous()


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    program = torch.export.export(MODELS[request.param]().eval(), (inputs(request.param),))
    torch.onnx.export(program, f=str(path), dynamo=True, verbose=False)
    return request.param, program, path


def test_an_exported_model_is_its_file(exported: tuple[str, Any, Path]) -> None:
    operator, program, path = exported
    assert operator in {node.op_type for node in onnx.load(str(path)).graph.node}
    found = foldproof.prove(program, path, (inputs(operator),))
    assert found.kind is Kind.PROVED, str(found)


def test_a_change_inside_of_a_part_is_refuted(exported: tuple[str, Any, Path], tmp_path: Path) -> None:
    operator, program, path = exported
    model = onnx.load(str(path))
    change(model.graph, operator)
    onnx.save(model, str(tmp_path / "changed.onnx"))
    assert foldproof.prove(program, tmp_path / "changed.onnx", (inputs(operator),)).kind is Kind.REFUTED
    found = foldproof.prove(path, tmp_path / "changed.onnx", (inputs(operator),))
    assert found.kind is Kind.REFUTED and found.counterexample is not None


def change(graph: Any, operator: str) -> None:
    """Replace an activation inside of a part, or a recurrent layer's, by another."""
    (node,) = (node for node in graph.node if node.op_type == operator)
    if operator in ("LSTM", "GRU"):
        names = {"LSTM": ["Sigmoid", "Relu", "Tanh"] * 2, "GRU": ["Sigmoid", "Relu"]}[operator]
        node.attribute.append(onnx.helper.make_attribute("activations", names))
        return
    parts = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    activation = next(n for part in parts for n in part.node if n.op_type in ("Relu", "Tanh"))
    activation.op_type = "Softsign"


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


RECURRENT: dict[str, tuple[str, list[Tensor | None], dict[str, Any]]] = {
    "RNN": ("RNN", [drawn(5, 2, 3), drawn(1, 4, 3), drawn(1, 4, 4), drawn(1, 8)], {"activations": ["Relu"]}),
    "RNN, backwards": ("RNN", [drawn(5, 2, 3), drawn(1, 4, 3), drawn(1, 4, 4)], {"direction": "reverse"}),
    "GRU": ("GRU", [drawn(5, 2, 3), drawn(2, 12, 3), drawn(2, 12, 4), drawn(2, 24)], {"direction": "bidirectional"}),
    "GRU, reset later": (
        "GRU",
        [drawn(5, 2, 3), drawn(1, 12, 3), drawn(1, 12, 4), drawn(1, 24), None, drawn(1, 2, 4)],
        {"linear_before_reset": 1, "clip": 0.5},
    ),
    "LSTM": (
        "LSTM",
        [
            *(drawn(5, 2, 3), drawn(2, 16, 3), drawn(2, 16, 4), drawn(2, 32), None),
            *(drawn(2, 2, 4), drawn(2, 2, 4), drawn(2, 12)),
        ],
        {"direction": "bidirectional"},
    ),
    "LSTM, clipped": ("LSTM", [drawn(5, 2, 3), drawn(1, 16, 3), drawn(1, 16, 4)], {"clip": 0.3}),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_recurrent_layers(case: str) -> None:
    operator, operands, attributes = RECURRENT[case]
    given = [x for x in operands if x is not None]
    model = model_of(operator, operands, "", hidden_size=4, **attributes)
    torch.testing.assert_close(read_graph(model)(*given), run(model, given)[0], rtol=1e-4, atol=1e-5)


def test_sequences_of_several_lengths_are_refused() -> None:
    operands = [drawn(5, 2, 3), drawn(1, 4, 3), drawn(1, 4, 4), None, torch.tensor([5, 3], dtype=torch.int32)]
    model = model_of("RNN", operands, "", hidden_size=4)
    with pytest.raises(NotTranslated, match="sequences of several lengths"):
        read_graph(model)(*(x for x in operands if x is not None))


def graph(nodes: Sequence[Any], given: Sequence[Tensor]) -> Any:
    helper = onnx.helper
    declared = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.numpy().dtype), list(x.shape))
        for i, x in enumerate(given)
    ]
    whole = helper.make_graph(list(nodes), "g", declared, [helper.make_empty_tensor_value_info("y")])
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_lists_of_tensors() -> None:
    make = onnx.helper.make_node
    place = onnx.numpy_helper.from_array(torch.tensor(1).numpy(), "place")
    nodes = [
        make("Constant", [], ["one"], value=place),
        make("SequenceConstruct", ["x0", "x1"], ["s"]),
        make("SequenceInsert", ["s", "x2", "one"], ["t"]),
        make("SequenceErase", ["t"], ["u"]),
        make("ConcatFromSequence", ["u"], ["v"], axis=0),
        make("SequenceLength", ["t"], ["n"]),
        make("CastLike", ["n", "v"], ["m"]),
        make("Mul", ["v", "m"], ["y"]),
    ]
    given = [drawn(2, 3), drawn(3, 3), drawn(4, 3)]
    model = graph(nodes, given)
    (wanted,) = run(model, given)
    assert wanted.shape == (6, 3) and torch.equal(read_graph(model)(*given), wanted)


def test_functions_of_the_specification_are_written_out() -> None:
    """The loss is one of two functions inside of each other, of which the inner one needs types."""
    nodes = [onnx.helper.make_node("SoftmaxCrossEntropyLoss", ["x0", "x1"], ["y"], reduction="sum")]
    given = [drawn(3, 5), torch.tensor([1, 0, 4])]
    model = graph(nodes, given)
    torch.testing.assert_close(read_graph(model)(*given), nn.functional.cross_entropy(*given, reduction="sum"))


def test_strings_are_refused() -> None:
    nodes = [onnx.helper.make_node("Constant", [], ["y"], value=onnx.helper.make_tensor("v", 8, [1], [b"a"]))]
    with pytest.raises(NotTranslated, match="computes with strings"):
        read_graph(graph(nodes, [drawn(1)]))
