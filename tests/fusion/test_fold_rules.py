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
from foldproof.fusion.affines import SOURCES, NormAffine
from foldproof.fusion.dead_channels import DeadChannels
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging import MERGES
from foldproof.fusion.motion import MOTIONS
from foldproof.fusion.motion.limits import Limits
from foldproof.fusion.rewriter import DEFAULT

RULES = (*SOURCES, *MOTIONS, Limits(), *ABSORBERS, *MERGES, DeadChannels())
FIRES = [pytest.param(e, id=f"{rule.id}: {e.name}") for rule in RULES for e in rule.fires]
DECLINES = [pytest.param(e, id=f"{rule.id}: {e.name}") for rule in RULES for e in rule.declines]


def passes_for(example: Fires | Declines) -> tuple[str, ...] | None:
    """The rule that is not applied by default has to be asked for."""
    asked = (rule for rule in (NormAffine, DeadChannels) if example in (*rule.fires, *rule.declines))
    return next(((*DEFAULT, rule.id) for rule in asked), None)


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
    result = foldproof.fuse(program, inputs, passes=passes_for(example))
    assert result.rewrites and not norms(result.program)
    if form == "training IR":  # decomposed, there may be more to fold, and more that can't be
        # Without its affine, a normalisation of each sample stands.
        assert all("its statistics from each sample" in declined.reason for declined in result.declined)
    assert {rewrite.verdict.kind for rewrite in result.rewrites} == {Kind.PROVED}
    assert sum(result.operators_after.values()) <= sum(result.operators_before.values())
    assert all(rewrite.accuracy is None or rewrite.accuracy.ratio <= 16 for rewrite in result.rewrites)
    assert any(rewrite.accuracy is not None for rewrite in result.rewrites)
    assert result.verdict.kind is Kind.PROVED, result.verdict
    assert result.verdict.proof is not None and result.verdict.proof.log2_error < -40
    assert str(result.verdict.claim).startswith("all inputs")
    assert_unchanged(before, program)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6


@pytest.mark.parametrize("example", FIRES)
def test_is_exact_up_to_float64(example: Fires) -> None:
    model, inputs = example.make()
    model, inputs = model.double(), tuple(x.double() for x in inputs)
    program = torch.export.export(model, inputs)
    result = foldproof.fuse(program, inputs, passes=passes_for(example), prove=False)
    assert result.rewrites
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 1e-13


@pytest.mark.parametrize("example", DECLINES)
def test_declines_and_changes_nothing(example: Declines) -> None:
    program, inputs = exported(example)
    before = snapshot(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = foldproof.fuse(program, inputs, passes=passes_for(example))
    assert result.rewrites == ()
    assert any(example.reason in declined.reason for declined in result.declined)
    assert_unchanged(before, program)
    torch.manual_seed(0)
    before_fusing = run(program, inputs)
    torch.manual_seed(0)
    for a, b in zip(before_fusing, run(result.program, inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("example", DECLINES)
def test_declined_in_one_form_is_never_wrong_in_the_other(example: Declines) -> None:
    """A fold that is declined may be possible after decomposition."""
    program, inputs = exported(example)
    program = FORMS["core ATen"](program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = foldproof.fuse(program, inputs, passes=passes_for(example))
    torch.manual_seed(0)
    before = run(program, inputs)
    torch.manual_seed(0)
    if result.rewrites:
        assert largest_error(before, run(result.program, inputs)) < 2e-6
        assert result.verdict.kind is Kind.PROVED or "random" in result.verdict.reason
