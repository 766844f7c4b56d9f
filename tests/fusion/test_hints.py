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
