"""Every rule on its own examples, in every form of program."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, assert_unchanged, largest_error, norms, run, snapshot

import foldproof
from foldproof import Kind
from foldproof.fusion.absorb import ABSORBERS
from foldproof.fusion.affine import SOURCES
from foldproof.fusion.examples import Declines, Fires

RULES = (*SOURCES, *ABSORBERS)
FIRES = [pytest.param(e, id=f"{rule.id}: {e.name}") for rule in RULES for e in rule.fires]
DECLINES = [pytest.param(e, id=f"{rule.id}: {e.name}") for rule in RULES for e in rule.declines]


@cache
def exported(example: Fires | Declines) -> tuple[torch.export.ExportedProgram, tuple[Any, ...]]:
    model, inputs = example.make()
    return torch.export.export(model, inputs), inputs


def test_rules_are_told_apart_and_state_their_algebra() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.fires and rule.declines
        assert "=" in (rule.__doc__ or "")


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
@pytest.mark.parametrize("example", FIRES)
def test_fires_and_is_proved(example: Fires, form: str) -> None:
    program, inputs = exported(example)
    program = FORMS[form](program)
    before = snapshot(program)
    result = foldproof.fuse(program, inputs)
    assert norms(program) and not norms(result.program)
    assert result.declined == ()
    assert [rewrite.verdict.kind for rewrite in result.rewrites] == [Kind.PROVED] * len(norms(program))
    assert result.verdict.kind is Kind.PROVED, result.verdict
    assert result.verdict.proof is not None and result.verdict.proof.log2_error < -40
    assert result.verdict.quantified.startswith("all inputs and all parameters")
    assert_unchanged(before, program)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6


@pytest.mark.parametrize("example", FIRES)
def test_is_exact_up_to_float64(example: Fires) -> None:
    model, inputs = example.make()
    model, inputs = model.double(), tuple(x.double() for x in inputs)
    program = torch.export.export(model, inputs)
    result = foldproof.fuse(program, inputs, prove=False)
    assert not norms(result.program)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 1e-14


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
@pytest.mark.parametrize("example", DECLINES)
def test_declines_and_changes_nothing(example: Declines, form: str) -> None:
    program, inputs = exported(example)
    program = FORMS[form](program)
    before = snapshot(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = foldproof.fuse(program, inputs)
    assert result.rewrites == ()
    assert [declined.node for declined in result.declined] == norms(program) == norms(result.program)
    if form == "training IR":  # decomposed, the neighbours have other names
        assert example.reason in result.declined[0].reason
    assert_unchanged(before, program)
    for a, b in zip(run(program, inputs), run(result.program, inputs), strict=True):
        assert torch.equal(a, b)
