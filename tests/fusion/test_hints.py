"""Hints and reasons: what they advise keeps the function, and what they name is there."""

from __future__ import annotations

import math
import re
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import foldproof
from foldproof.fusion.absorb import ABSORBERS
from foldproof.fusion.affines import SOURCES
from foldproof.fusion.examples import Declines, chain, functional
from foldproof.fusion.merging import MERGES
from foldproof.fusion.motion import MOTIONS
from foldproof.rewriting.refusal import next_training

RULES = (*SOURCES, *MOTIONS, *ABSORBERS, *MERGES)
DECLINES = [pytest.param(e, id=f"{rule.id}: {e.name}") for rule in RULES for e in rule.declines]
SAFE = {
    "",
    "call model.eval() before the export",
    "normalise before the program is called",
    "raise accuracy_limit, if these digits do not matter",
    "untie the weights",
    "pad before it, with the value of each channel that it makes 0, instead of in conv2d",
    "the pass 'norm_affine' moves its weight and bias into its readers, where they can take them",
}
"""Hints after which a trained model computes what it did."""


def list_declined(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return foldproof.fuse(model, inputs, prove=False).declined


@pytest.mark.parametrize("example", DECLINES)
def test_a_hint_keeps_the_function_or_says_that_it_does_not(example: Declines) -> None:
    marked = re.escape(next_training("CHANGE")).replace("CHANGE", ".+")
    for declined in list_declined(*example.make()):
        assert declined.hint in SAFE or re.fullmatch(marked, declined.hint), declined


def test_reasons_name_nodes_of_the_final_program() -> None:
    """The normalisation is read by a division, which itself is folded later in the same round."""
    model, inputs = functional(
        ((2, 6, 7, 8),),
        lambda m, x: m.b(m.n(x.sin()) / m.k.view(6, 1, 1)),
        n=partial(nn.BatchNorm2d, 6),
        b=partial(nn.Conv2d, 6, 3, 3, padding=1),
        k=lambda: torch.rand(6) + 0.5,
    )()
    result = foldproof.fuse(model, inputs)
    names = {node.name for node in result.program.graph.nodes}
    for declined in result.declined:
        assert declined.node in names
        for named in re.findall(r"\b(?:div|mul|add|sub|conv2d|batch_norm)(?:_\d+)?\b(?= \(| pads)", declined.reason):
            assert named in names, declined.reason


@pytest.mark.parametrize(("value", "said"), [(math.nan, "holds nan"), (math.inf, "holds an infinite number")])
def test_a_statistic_that_is_no_number_is_named(value: float, said: str) -> None:
    model, inputs = chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 6, 3), partial(nn.BatchNorm2d, 6))()
    model[1].running_mean[2] = value  # type: ignore[index, union-attr, operator]
    [declined] = list_declined(model, inputs)
    assert f"would not be finite in float32: 1.running_mean {said}" in declined.reason


def test_a_negative_variance_is_said_to_be_one() -> None:
    model, inputs = chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 6, 3), partial(nn.BatchNorm2d, 6))()
    model[1].running_var[2] = -1.0  # type: ignore[index, union-attr, operator]
    [declined] = list_declined(model, inputs)
    assert "a variance + eps is 0 or negative" in declined.reason


def test_equal_reasons_are_one_line() -> None:
    norm = partial(nn.BatchNorm1d, 4, track_running_stats=False)
    model = nn.Sequential(*(part for _ in range(6) for part in (nn.Linear(4, 4), nn.ReLU(), norm())))
    result = foldproof.fuse(model, (torch.randn(3, 4),))
    [line] = [line for line in str(result).splitlines() if "not folded" in line]
    assert line.startswith("  not folded: 6 × aten.batch_norm.default (batch_norm, batch_norm_1, ")


def test_normalisations_of_each_sample_are_named() -> None:
    """They stay, and so do those in regions under autocast, with the way to fold these."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.group, self.batch = nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.BatchNorm1d(6)
            self.linear = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.group(self.layer(x))
            with torch.autocast("cpu", torch.bfloat16):
                return self.batch(self.linear(x))

    model, x = Model().eval(), (torch.randn(3, 6),)
    found = {one.operator: one for one in list_declined(model, x)}
    assert {"aten.layer_norm.default", "aten.group_norm.default", "aten.batch_norm.default"} == found.keys()
    assert "autocast" in found["aten.batch_norm.default"].hint
    decomposed = torch.export.export(model, x).run_decompositions({})
    assert [rewrite.rule for rewrite in foldproof.fuse(decomposed, x).rewrites] == ["batch_norm into linear"]


def test_the_advice_on_a_padded_stem_keeps_the_function() -> None:
    """Zeros around (x - 0.5)/0.2 are 0.5 around x; with these, all of the arithmetic is folded."""

    class Stem(nn.Module):
        def __init__(self, value: float | None) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.value = nn.Conv2d(3, 4, 3, padding=int(value is None)), value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x if self.value is None else nn.functional.pad(x, (1, 1, 1, 1), value=self.value)
            return self.conv((x - 0.5) / 0.2)

    x = (torch.rand(2, 3, 7, 7),)
    padded, advised = Stem(None).eval(), Stem(0.5).eval()
    assert foldproof.prove(padded, advised, x).kind is foldproof.Kind.PROVED
    assert foldproof.fuse(advised, x).operators_after.total() == 2
