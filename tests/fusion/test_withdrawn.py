"""Rewrites that are withdrawn: each is reported, with its own reason."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import foldproof
from foldproof.fusion import rewriter
from foldproof.fusion.examples import functional
from foldproof.verdict import Kind, Verdict

_conv = partial(nn.Conv2d, 6, 6)


def test_a_withdrawn_merge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = functional(
        ((2, 6, 7, 8),), lambda m, x: (m.a(x) + m.b(x)).relu(), a=partial(_conv, 3, padding=1), b=partial(_conv, 1)
    )()
    program = torch.export.export(model, inputs)

    def of(passes: object, prove_region: object) -> rewriter.Rewriter:
        return rewriter.Rewriter(lambda *a, **k: Verdict(Kind.UNDECIDED, "out of time"))

    monkeypatch.setattr(rewriter.Rewriter, "of", staticmethod(of))
    [declined] = foldproof.fuse(program, inputs).declined
    assert declined.operator == "aten.add.Tensor"
    assert "was withdrawn, because it is not proved: out of time" in declined.reason


def test_a_merge_that_loses_digits_says_so() -> None:
    def far(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.a(x) + m.b(x)

    model, inputs = functional(((2, 6, 7, 8),), far, a=partial(_conv, 3, padding=1), b=partial(_conv, 1))()
    with torch.no_grad():
        model.b.weight.copy_(-model.a.weight[:, :, 1:2, 1:2])  # type: ignore[union-attr, operator]
        model.a.weight[:, :, 1, 1] *= 1 + 1e-6  # type: ignore[union-attr, index, operator]
    result = foldproof.fuse(model, inputs, accuracy_limit=1e-9)
    assert result.rewrites == ()
    [declined] = result.declined
    assert declined.operator == "aten.add.Tensor" and "loses digits" in declined.reason


def test_kernels_that_cancel_by_chance_are_merged() -> None:
    """Of 300,000 elements of a sum, some are small by chance; the merge has its rounding checked, and not withdrawn."""
    torch.manual_seed(0)
    model, inputs = functional(
        ((1, 192, 4, 4),),
        lambda m, x: m.n(m.a(x)) + m.k(m.b(x)),
        a=partial(nn.Conv2d, 192, 192, 3, padding=1, bias=False),
        b=partial(nn.Conv2d, 192, 192, 1, bias=False),
        n=partial(nn.BatchNorm2d, 192),
        k=partial(nn.BatchNorm2d, 192),
    )()
    result = foldproof.fuse(model, inputs)
    assert result.declined == () and result.verdict.kind is Kind.PROVED
    assert dict(result.operators_after) == {"aten.conv2d.default": 1}
