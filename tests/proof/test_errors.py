"""Questions that can't be asked end in one sentence, before anything is run."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from torch import Tensor, nn

from foldproof import FoldproofError, prove, prove_pass

from .models import Module

X = torch.ones(3, 4)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nested tensors are a prototype, quantized ones on their way out
    NESTED = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    QUANTIZED = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)


def one_sentence(error: pytest.ExceptionInfo[FoldproofError]) -> bool:
    message = str(error.value)
    return "\n" not in message and ". " not in message and len(message) < 250


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (NESTED, "nested"),
        (QUANTIZED, "quantized"),
    ],
    ids=["sparse", "nested", "quantized"],
)
def test_tensors_without_residues(tensor: Tensor, what: str) -> None:
    with pytest.raises(FoldproofError, match=f"an input .*{what}") as error:
        prove(lambda x: x * 2, lambda x: x + x, (tensor,))
    assert one_sentence(error)
    model = Module(lambda s, x: x, held=tensor)
    for prover in (lambda: prove(model, model, (X,)), lambda: prove_pass(lambda m: m, model, (X,))):
        with pytest.raises(FoldproofError, match=f"held .*{what}") as error:
            prover()
        assert one_sentence(error)


def test_passes_need_values() -> None:
    """`prove` takes models on the meta device; a pass computes with their values."""
    model = nn.Linear(3, 3, device="meta")
    with pytest.raises(
        FoldproofError, match="weight is on the meta device or a fake tensor, and has no values"
    ) as error:
        prove_pass(lambda m: m, model, (X,))
    assert one_sentence(error)


def holding_an_activation() -> nn.Module:
    model = nn.Linear(4, 4)
    model.last = model(X)
    return model


@pytest.mark.parametrize(
    "model", [Module(lambda s, x: x, lock=threading.Lock()), holding_an_activation()], ids=["lock", "activation"]
)
def test_models_that_can_not_be_copied(model: nn.Module) -> None:
    with pytest.raises(FoldproofError, match="cannot be copied") as error:
        prove_pass(lambda m: m, model, (X,))
    assert one_sentence(error)


def test_a_bare_tensor_is_not_unpacked_into_its_rows() -> None:
    """The one row of this one would fit, and the proof would be about another shape."""
    model = nn.Linear(4, 4)
    with pytest.raises(FoldproofError, match=r"write \(x,\)") as error:
        prove(model, model, X[:1])  # type: ignore[arg-type]
    assert one_sentence(error)
    with pytest.raises(FoldproofError, match=r"write \(x,\)"):
        prove_pass(lambda m: m, model, X[:1])  # type: ignore[arg-type]
