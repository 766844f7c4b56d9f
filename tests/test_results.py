"""Results as text: short for a debugger, whole for `print` and for a notebook."""

from __future__ import annotations

import html
import re

import pytest
import torch
from torch import nn

import foldproof
from foldproof.formatting import SYMBOLS


@pytest.fixture(scope="module")
def results() -> list[object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = (torch.randn(1, 3, 8, 8),)
    return [
        foldproof.prove(model, model, x),
        foldproof.prove(lambda x: x, lambda x: x * 2, x),
        foldproof.fuse(model, x),
        foldproof.compare(model, model, x, trials=2),
        foldproof.audit(model, x, compiler="fx"),
    ]


def test_representations_are_one_short_line(results: list[object]) -> None:
    for result in results:
        shown = repr(result)
        assert len(shown) < 200 and "\n" not in shown and " at 0x" not in shown
        assert shown.startswith(f"<{type(result).__name__}")


def test_notebooks_show_the_verdict_and_the_whole_text(results: list[object]) -> None:
    for result in results:
        made = result._repr_html_()  # type: ignore[attr-defined]
        text = html.unescape(re.sub(r"<[^>]+>", " ", made))
        for line in str(result).splitlines():
            kind, colon, rest = line.partition(": ")
            assert rest in text if colon else kind.strip() in text, (line, text)
        verdict = getattr(result, "verdict", result)
        kind = getattr(verdict, "kind", None)
        if kind is not None:
            assert f"{SYMBOLS[kind]} {kind.value.replace('_', ' ')}" in made


def test_a_fusion_tells_its_folds(results: list[object]) -> None:
    assert "batch_norm into convolution" in str(results[2])


def test_the_package_lists_its_names() -> None:
    assert dir(foldproof) == sorted(foldproof.__all__)
