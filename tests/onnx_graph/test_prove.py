"""Proofs of ONNX files beside programs, and beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.onnx_graph import NotTranslated, hold_shapes, read_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


class Two(nn.Module):
    """Two inputs, of which one is named, and two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.side = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, *, mask: Tensor) -> dict[str, Tensor]:
        return {"z": self.up(x).relu(), "h": self.side(x) * mask}


X, MASK = torch.randn(2, 4), torch.rand(2, 4)


def model() -> Two:
    torch.manual_seed(0)
    return Two().eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "two.onnx"
    torch.onnx.export(model(), (X,), kwargs={"mask": MASK}, f=str(path), dynamo=True, verbose=False)
    return path


def test_a_file_is_its_model_for_all_parameters(file: Path) -> None:
    found = foldproof.prove(model(), file, (X,), {"mask": MASK})
    assert found.kind is Kind.PROVED and found.claim is not None and found.claim.is_general, str(found)


def test_another_model_is_refuted(file: Path) -> None:
    other = model()
    with torch.no_grad():
        other.side.bias[1] += 0.01
    for pair in ((other, file), (file, other)):
        found = foldproof.prove(*pair, (X,), {"mask": MASK})
        assert found.kind is Kind.REFUTED and found.counterexample is not None
        assert found.counterexample.output == 1


def test_inputs_in_another_order(tmp_path: Path) -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = model()

        def forward(self, mask: Tensor, x: Tensor) -> Any:
            return self.two(x, mask=mask)

    path = tmp_path / "swapped.onnx"
    torch.onnx.export(Swapped(), (MASK, X), str(path), dynamo=True, verbose=False)
    assert foldproof.prove(model(), path, (X,), {"mask": MASK}).kind is Kind.PROVED


def test_a_changed_file_is_refuted_beside_the_other(file: Path, tmp_path: Path) -> None:
    changed = onnx.load(str(file))
    (relu,) = (node for node in changed.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    path = tmp_path / "changed.onnx"
    onnx.save(changed, str(path))
    assert foldproof.prove(file, path, (X, MASK)).kind is Kind.REFUTED
    assert foldproof.prove(file, file, (X, MASK)).kind is Kind.PROVED


def test_errors_are_one_sentence(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(FoldproofError, match="can't be read as an ONNX model"):
        foldproof.prove(model(), broken, (X,), {"mask": MASK})
    with pytest.raises(FoldproofError, match=r"takes 2 inputs \(x, mask\), but 1 tensors? (is|are) given"):
        foldproof.prove(file, file, (X,))
    with pytest.raises(FoldproofError, match=r"takes mask of torch.float32 and shape \(2, 4\), but"):
        foldproof.prove(file, file, (X, torch.rand(2, 5)))
    with pytest.raises(FoldproofError, match=r"takes x of torch.float32"):
        foldproof.prove(file, file, (X.double(), MASK))


def graph(nodes: list[Any], inputs: list[str], held: dict[str, Tensor], versions: dict[str, int] | None = None) -> Any:
    """A model of these nodes, from 3 float32 numbers each to ``y``."""
    helper = onnx.helper
    given, (made,) = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in names]
        for names in (inputs, ["y"])
    )
    constants = [onnx.numpy_helper.from_array(x.numpy(), name) for name, x in held.items()]
    opsets = [helper.make_opsetid(domain, version) for domain, version in (versions or {"": 18}).items()]
    whole = helper.make_graph(nodes, "g", given, [made], constants)
    return helper.make_model(whole, opset_imports=opsets, ir_version=9)


def saved(folder: Path, name: str, model: Any) -> Path:
    onnx.save(model, str(folder / name))
    return folder / name


ONE = torch.tensor([1.0, 2.0, 3.0])


def test_constants_whose_names_collide(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Mul", ["x", "w.k"], ["p"]), onnx.helper.make_node("Add", ["p", "w..k"], ["y"])]
    for first, second in (("w.k", "w..k"), ("a", "a.b"), ("graph", "_parameters"), ("w/k", "w_k")):
        named = onnx.load_from_string(graph(nodes, ["x"], {"w.k": ONE, "w..k": 10 * ONE}).SerializeToString())
        for tensor, name in zip(named.graph.initializer, (first, second)):
            tensor.name = name
        named.graph.node[0].input[1], named.graph.node[1].input[1] = first, second
        path = saved(tmp_path, "named.onnx", named)
        assert foldproof.prove(lambda x: x * ONE + 10 * ONE, path, (ONE,)).kind is Kind.PROVED
        assert foldproof.prove(lambda x: x * ONE + ONE, path, (ONE,)).kind is Kind.REFUTED


def test_an_old_version_under_another_name(tmp_path: Path) -> None:
    softmax = [onnx.helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    for versions in ({"ai.onnx": 11}, {"": 18, "ai.onnx": 11}):
        path = saved(tmp_path, "old.onnx", graph(softmax, ["x"], {}, versions))
        with pytest.raises(NotTranslated, match="version 11"):
            foldproof.prove(lambda x: x.softmax(0), path, (ONE,))


def test_inputs_of_two_files_are_found_by_name(tmp_path: Path) -> None:
    def file_of(name: str, inputs: list[str], operands: list[str]) -> Path:
        return saved(tmp_path, name, graph([onnx.helper.make_node("Sub", operands, ["y"])], inputs, {}))

    one, given = file_of("a.onnx", ["x", "z"], ["x", "z"]), (ONE, ONE.flip(0))
    assert foldproof.prove(one, file_of("b.onnx", ["z", "x"], ["x", "z"]), given).kind is Kind.PROVED
    assert foldproof.prove(one, file_of("c.onnx", ["z", "x"], ["z", "x"]), given).kind is Kind.REFUTED
    with pytest.raises(FoldproofError, match="some names are the same"):
        foldproof.prove(one, file_of("d.onnx", ["x", "other"], ["x", "other"]), given)


REFUSED = {
    "a size that is no whole number": ("Resize", {"mode": "nearest"}, [[1, 1, 10], [1.0, 1.0, 0.75]]),
    "a scale that is not the ratio of the sizes": ("Resize", {"mode": "linear"}, [[1, 1, 10], [1.0, 1.0, 2.0000005]]),
    "neighbours by a fraction": ("Resize", {"mode": "nearest"}, [[1, 1, 10], [1.0, 1.0, 0.7]]),
    "no axes": ("ReduceSumSquare", {"noop_with_empty_axes": 1}, [[3]]),
    "windows behind the end": (
        "MaxPool",
        {"kernel_shape": [2], "strides": [2], "pads": [0, 1], "ceil_mode": 1},
        [[1, 1, 4]],
    ),
    "backwards from outside": ("Slice", {}, [[3], [-9], [-5], [0], [-1]]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_runtimes_differ_nothing_is_said(case: str) -> None:
    operator, attributes, (shape, *more) = REFUSED[case]
    x = torch.randn(shape)
    constants = [torch.tensor(n) for n in more]
    names = [f"c{i}" for i in range(len(constants))]
    operands = ["x", "", *names] if operator == "Resize" else ["x", *names]
    model = graph([onnx.helper.make_node(operator, operands, ["y"], **attributes)], ["x"], dict(zip(names, constants)))
    with pytest.raises(NotTranslated):
        read_graph(model)(x)


def test_an_output_that_a_file_cannot_have(tmp_path: Path) -> None:
    path = saved(tmp_path, "one.onnx", graph([onnx.helper.make_node("Relu", ["x"], ["y"])], ["x"], {}))
    with pytest.raises(FoldproofError, match="an output is 5, which is no tensor"):
        foldproof.prove(lambda x: (x.relu(), 5), path, (ONE,))
    assert foldproof.prove(lambda x: (x.relu(), None), path, (ONE,)).kind is Kind.PROVED


def test_sizes_that_depend_on_a_parameter_are_not_held() -> None:
    """The number of largest elements is a parameter, cast to a whole number: it is no constant of the shapes."""
    nodes = [
        onnx.helper.make_node("Cast", ["k"], ["n"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("TopK", ["x", "n"], ["y", "places"]),
    ]
    module = read_graph(graph(nodes, ["x"], {"k": torch.tensor([2.0, 2.0])[:2]}))
    hold_shapes(module, (ONE,))
    (topk,) = (node for node in module.graph.nodes if node.name.startswith("TopK"))
    assert isinstance(topk.args[1], torch.fx.Node)
