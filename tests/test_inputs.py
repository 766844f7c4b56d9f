"""Example inputs are a list or a tuple, wherever they are taken; a lone tensor is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.testing import assert_close_enough, assert_equivalent

MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
X = torch.randn(2, 3)


def fold(inputs: Any) -> Any:
    return foldproof.fold_qat(torch.export.export(MODEL, (X,)), inputs).verdict


TAKING: dict[str, Callable[[Any], Any]] = {
    "fuse": lambda inputs: foldproof.fuse(MODEL, inputs).verdict,
    "explain": lambda inputs: foldproof.explain(MODEL, inputs),
    "prove": lambda inputs: foldproof.prove(MODEL, MODEL, inputs),
    "prove_pass": lambda inputs: foldproof.prove_pass(lambda module: module, MODEL, inputs),
    "compare": lambda inputs: foldproof.compare(MODEL, MODEL, inputs, trials=1).verdict,
    "fold_qat": fold,
    "audit": lambda inputs: foldproof.audit(MODEL, inputs, compiler="fx"),
    "assert_equivalent": lambda inputs: assert_equivalent(MODEL, MODEL, inputs),
    "assert_close_enough": lambda inputs: assert_close_enough(MODEL, MODEL, inputs).verdict,
}


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("inputs", [(X,), [X]], ids=["tuple", "list"])
def test_a_list_is_as_good_as_a_tuple(name: str, inputs: Any) -> None:
    found = TAKING[name](inputs)
    assert name == "explain" or found.kind in (Kind.PROVED, Kind.ROUNDING), str(found)


@pytest.mark.parametrize("name", TAKING)
def test_a_tensor_is_refused(name: str) -> None:
    with pytest.raises(FoldproofError, match=r"inputs must be a tuple of example inputs, not Tensor: write \(x,\)"):
        TAKING[name](X)
