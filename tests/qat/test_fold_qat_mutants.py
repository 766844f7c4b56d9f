"""Broken folds: each is refuted, or at least never proved."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

import foldproof
from foldproof import Kind
from foldproof.qat import bias, chain, passes
from tests.qat.qat_programs import QUANTIZERS, converted

Affine = chain.ChannelAffine


def affine_mutant(change: Any) -> Any:
    def install(monkeypatch: pytest.MonkeyPatch) -> None:
        right = chain.AffineOf.__call__
        monkeypatch.setattr(chain.AffineOf, "__call__", lambda self, leaves: change(self, right(self, leaves), leaves))

    return install


def leaf(leaves: Any, name: str) -> Any:
    return next(t for n, t in leaves.items() if n.endswith(name)).double()


MUTANTS = {
    "shift has the wrong sign": affine_mutant(lambda s, a, leaves: Affine(a.axis, a.scale, -a.shift)),
    "shift is forgotten": affine_mutant(lambda s, a, leaves: Affine(a.axis, a.scale, a.shift * 0)),
    "mean has the wrong sign": affine_mutant(
        lambda s, a, leaves: Affine(
            a.axis,
            a.scale,
            a.shift
            + 2
            * leaf(leaves, "running_mean")
            * leaf(leaves, "1.weight")
            * (leaf(leaves, "running_var") + 1e-5).rsqrt(),
        )
    ),
    "gamma is forgotten": affine_mutant(
        lambda s, a, leaves: Affine(
            a.axis, a.scale, (a.shift - leaf(leaves, "1.bias")) / leaf(leaves, "1.weight") + leaf(leaves, "1.bias")
        )
    ),
    "eps is forgotten": affine_mutant(
        lambda s, a, leaves: Affine(
            a.axis,
            a.scale,
            (a.shift - leaf(leaves, "1.bias"))
            * (leaf(leaves, "running_var") + 1e-5).sqrt()
            * leaf(leaves, "running_var").rsqrt()
            + leaf(leaves, "1.bias"),
        )
    ),
    "beta is forgotten": affine_mutant(lambda s, a, leaves: Affine(a.axis, a.scale, a.shift - leaf(leaves, "1.bias"))),
    "channels are reversed": affine_mutant(lambda s, a, leaves: Affine(a.axis, a.scale, a.shift.flip(0))),
    "scale is forgotten": None,
    "bias is read with the input's scale": None,
    "old bias is forgotten": None,
}


def scale_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "is_one", lambda *_: True)


def bias_scale_of_the_wrong_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    right = passes.Rewriting.call

    def call(self: Any, before: Any, target: Any, node: Any, scale: Any, *rest: Any) -> Any:
        wrong = scale * 2 if isinstance(scale, float) else before.args[1].args[1]
        return right(self, before, target, node, wrong if rest[-1] is torch.int32 else scale, *rest)

    monkeypatch.setattr(passes.Rewriting, "call", call)


def old_bias_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bias.give_bias

    def without(rewriting: Any, operator: Any, at: Any, real: Any, *rest: Any) -> Any:
        def less(leaves: Any) -> Any:
            old = rewriting.image.evaluate(operator.bias, leaves)
            return real(leaves) - (0 if old is None else old)

        return right(rewriting, operator, at, less, *rest)

    monkeypatch.setattr(passes, "give_bias", without)


INSTALL = MUTANTS | {
    "scale is forgotten": scale_is_forgotten,
    "bias is read with the input's scale": bias_scale_of_the_wrong_tensor,
    "old bias is forgotten": old_bias_is_forgotten,
}
CONV = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
LINEAR = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
ONLY_LINEAR = {"scale is forgotten", "old bias is forgotten"}  # in a chain the scale is 1, and the old bias is zero


@functools.cache
def made(linear: bool, quantizer: str) -> Any:
    """Which is folded and proved as it should be, as long as nothing is broken."""
    torch.manual_seed(0)
    model, x = (LINEAR, torch.randn(8, 6)) if linear else (CONV, torch.randn(2, 3, 7, 7))
    module = converted(model, x, QUANTIZERS[quantizer]())
    assert foldproof.fold_qat(module, (x,)).verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN)
    return module


@pytest.mark.parametrize("quantizer", ["A", "B per channel"])
@pytest.mark.parametrize("mutant", INSTALL)
def test_mutant(mutant: str, quantizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = (LINEAR, torch.randn(8, 6)) if mutant in ONLY_LINEAR else (CONV, torch.randn(2, 3, 7, 7))
    if quantizer == "A" and "input's scale" in mutant:
        pytest.skip("its bias is no whole number")
    before = made(model is LINEAR, quantizer)
    INSTALL[mutant](monkeypatch)
    result = foldproof.fold_qat(before, (x,))
    assert not result.folded and result.verdict.kind is Kind.PROVED  # nothing was rewritten
    (declined,) = result.declined
    assert "REFUTED: a different function" in declined.reason and "witness:" in declined.reason
