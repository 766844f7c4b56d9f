"""Parts of qat_mnist; its run, which takes minutes, is in docs/qat.md."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch


def test_its_pieces() -> None:
    for name in ("executorch", "torchao", "mlxtend"):
        pytest.importorskip(name)
    path = Path(__file__).parents[2] / "examples" / "qat_mnist.py"
    found = importlib.util.spec_from_file_location("qat_mnist", path)
    assert found is not None and found.loader is not None
    example = importlib.util.module_from_spec(found)
    found.loader.exec_module(example)
    torch.manual_seed(0)
    x, y = example.images()
    assert x.shape == (5000, 1, 28, 28) and float(x.max()) == 1
    assert torch.equal(y.bincount(), torch.full((10,), 500))
    losses = example.train(example.Digits().train(), x[:1000], y[:1000], 2, 3e-3)
    assert len(losses) == 2 * 1000 // example.BATCH and losses[-1] < 0.7 * losses[0]
    picture = ElementTree.fromstring(example.curves({"one": losses, "two": losses}))
    assert len(picture.findall("{*}polyline")) == 2
