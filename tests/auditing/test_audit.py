"""Real wrong answers of released compilers: each refuted, with the right pass named; right ones are left in peace."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any

import pytest
import torch

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.auditing import api
from foldproof.auditing.compilers import COMPILERS
from foldproof.auditing.log import Log

from .models import WRONG, AddedUp, right


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of numbers has tests of its own."""
    monkeypatch.setattr(api, "TRIALS", 3)


def installed(compiler: str) -> None:
    for package in COMPILERS[compiler].packages:
        pytest.importorskip(package)


@functools.cache
def audited(name: str) -> foldproof.Audit:
    case = WRONG[name]
    model, inputs = case.build()
    return foldproof.audit(model, inputs, compiler=case.compiler, options=case.options)


@pytest.mark.parametrize("name", WRONG)
def test_the_guilty_pass_is_named(name: str) -> None:
    installed(WRONG[name].compiler)
    found = audited(name)
    assert {step.name for step in found.guilty} == {WRONG[name].guilty}
    assert found.kind is Kind.REFUTED
    assert found.guilty[0].verdict.witness is not None
    assert WRONG[name].guilty in found.conclusion
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.REFUTED


@pytest.mark.parametrize("name", [name for name in WRONG if not name.startswith("torchao")])
def test_all_other_steps_are_proved(name: str) -> None:
    installed(WRONG[name].compiler)
    others = [step for step in audited(name).steps if step.fired and step.name != WRONG[name].guilty]
    assert {step.verdict.kind for step in others} <= {Kind.PROVED}


@pytest.mark.parametrize("name", ["fx: conv called twice", "executorch: linear, 3-D, BatchNorm"])
def test_without_the_guilty_pass_all_is_well(name: str) -> None:
    case = WRONG[name]
    installed(case.compiler)
    model, inputs = case.build()
    found = foldproof.audit(model, inputs, compiler=case.compiler, options=case.options, disable=[case.guilty])
    assert not found.guilty
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.ROUNDING


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("inductor", {}),
        ("inductor", {"freezing": True}),
        ("executorch", {}),
        ("fx", {}),
        ("torchao", {"quantizer": "none"}),
        ("torch.ao", {}),
        ("onnx", {}),
        ("openvino", {}),
    ],
)
def test_right_compilations_are_proved(compiler: str, options: dict[str, Any]) -> None:
    installed(compiler)
    model, inputs = right()
    found = foldproof.audit(model, inputs, compiler=compiler, options=options)
    fired = [step for step in found.steps if step.fired]
    assert fired, "no pass did anything, so nothing was tried"
    assert {step.verdict.kind for step in fired} == {Kind.PROVED}, str(found)
    assert found.end_to_end is not None
    assert found.end_to_end.verdict.kind is Kind.ROUNDING
    assert "every graph pass is proved" in found.conclusion


def test_a_difference_below_the_graph_is_traced() -> None:
    """As in PyTorch #179574, and small: the mean over an embedding is added up in another order."""
    torch.manual_seed(0)
    model, inputs = AddedUp().eval(), [torch.randint(100, (4, 64))]
    found = foldproof.audit(model, inputs, disable=["reorder_for_locality"])
    assert "reorder_for_locality" not in {step.name for step in found.steps if step.fired}
    assert found.kind is Kind.ROUNDING
    assert found.end_to_end is not None and "compiling mean" in found.end_to_end.found
    first = found.end_to_end.sources[0]
    assert first.operator == "aten.mean.dim" and first.measured
    assert first.share is not None and first.share > 0.9
    assert "every graph pass is proved" in found.conclusion and "aten.mean.dim" in found.conclusion


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("inductor", {"freezing": True}),
        ("executorch", {}),
        ("fx", {}),
        ("torchao", {"quantizer": "none"}),
        ("onnx", {}),
        ("openvino", {}),
    ],
)
def test_a_tap_changes_nothing(compiler: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled program gives the same bits with the tap and without it."""
    installed(compiler)
    model, inputs = right()
    chosen = COMPILERS[compiler]
    with torch.no_grad():
        watched = chosen.compile(model, inputs, {}, options, Log(), frozenset()).call(*inputs)
        module = sys.modules[type(chosen).__module__]
        for tap in [name for name in vars(module) if name.startswith("tap_")]:
            monkeypatch.setattr(module, tap, lambda *_: contextlib.nullcontext())
        plain = chosen.compile(model, inputs, {}, options, Log(), frozenset()).call(*inputs)
    assert torch.equal(torch.utils._pytree.tree_leaves(watched)[0], torch.utils._pytree.tree_leaves(plain)[0])


def test_mistakes_are_told() -> None:
    model, inputs = right()
    with pytest.raises(FoldproofError, match="compiler must be one of"):
        foldproof.audit(model, inputs, compiler="gcc")
    with pytest.raises(FoldproofError, match="no option 'quantize'"):
        foldproof.audit(model, inputs, compiler="fx", options={"quantize": 1})
    with pytest.raises(FoldproofError, match="no such setting"):
        foldproof.audit(model, inputs, options={"freezin": True})
    with pytest.raises(FoldproofError, match=r"not a function"):
        foldproof.audit(lambda x: x, inputs)
