"""Proofs of ONNX files beside programs, and beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind

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
    with pytest.raises(FoldproofError, match="does not run on the inputs"):
        foldproof.prove(file, file, (X, torch.rand(2, 5)))
