"""Operators that other tools leave are counted rightly, where known; and their wrong answers are still wrong."""

from __future__ import annotations

import ast

import pytest
import torch
from torch import nn

from foldproof.fusion.examples import lively
from zoo.accuracy import error, truth
from zoo.architecture import Sample
from zoo.measure import Outcome
from zoo.tools import OF_TIMM, TOOLS
from zoo.wrong_answers import WRONG_ANSWERS, WrongAnswer


def sample(*parts: nn.Module, shape: tuple[int, ...] = (2, 3, 8, 8)) -> Sample:
    return Sample(lively(nn.Sequential(*parts)), (torch.randn(shape, generator=torch.Generator().manual_seed(0)),))


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != OF_TIMM])
def test_tools_fold_the_first_and_leave_the_second(tool: str) -> None:
    """Behind a convolution all of them fold a BatchNorm, and between two nonlinear operators there is no way."""
    made = sample(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.BatchNorm2d(4), nn.Tanh())
    with torch.no_grad():
        left = TOOLS[tool](made)
        assert left.batch_norms == 1
        assert error(left.run(), truth(made)) < 1e-5


def test_a_wrong_answer_is_told_from_a_rounded_one() -> None:
    """torch.fx still folds what torchao mended in #4242."""
    made = sample(nn.Linear(3, 5), nn.BatchNorm1d(5), shape=(2, 5, 3))
    with torch.no_grad():
        true = truth(made)
        eager = error([made.model(*made.inputs)], true)
        folded, rounded = (error(TOOLS[tool](made).run(), true) for tool in ("torch.fx", "torchao"))
    assert Outcome(0, eager, folded).wrong
    assert not Outcome(1, eager, rounded).wrong


def test_error_sees_every_output_and_what_is_not_finite() -> None:
    true = [torch.ones(3, dtype=torch.float64), torch.tensor([-torch.inf, 2.0], dtype=torch.float64)]
    assert error([torch.ones(3), torch.tensor([-torch.inf, 2.0])], true) == 0
    assert error([torch.ones(3), torch.tensor([-torch.inf, 2.2])], true) == pytest.approx(0.1 / 2**0.5, rel=1e-6)
    assert error([torch.ones(3), torch.tensor([0.0, 2.0])], true) == torch.inf
    assert error([torch.tensor([1, 1, torch.nan]), true[1]], true) == torch.inf
    with pytest.raises(ValueError):
        error(true[:1], true)


@pytest.mark.parametrize("answer", WRONG_ANSWERS, ids=lambda answer: answer.title)
def test_wrong_answers_are_still_wrong(answer: WrongAnswer) -> None:
    """When this fails the tool has been mended: take the finding out."""
    assert answer.difference() > 0.1
    assert len(answer.program.splitlines()) <= 18 and len(ast.parse(answer.program).body) <= 15
