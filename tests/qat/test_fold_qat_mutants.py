"""Broken folds: each is refuted, or at least never proved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foldproof
from foldproof import Kind
from foldproof.qat import bias, chain, fold, weight
from foldproof.rewriting.expression import Expression
from tests.qat.qat_programs import made

Affine = chain.ChannelAffine


def affine_mutant(change: Any) -> Any:
    def install(monkeypatch: pytest.MonkeyPatch) -> None:
        right = chain.ChainAffine.affine

        def affine(self: Any, constants: Any) -> Any:
            return change(right(self, constants), dict(zip(self.reads, constants)))

        monkeypatch.setattr(chain.ChainAffine, "affine", affine)

    return install


def leaf(leaves: Any, name: str) -> Any:
    return next(t for n, t in leaves.items() if n.endswith(name)).double()


MUTANTS = {
    "shift has the wrong sign": affine_mutant(lambda a, leaves: Affine(a.axis, a.scale, -a.shift)),
    "shift is forgotten": affine_mutant(lambda a, leaves: Affine(a.axis, a.scale, a.shift * 0)),
    "mean has the wrong sign": affine_mutant(
        lambda a, leaves: Affine(
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
        lambda a, leaves: Affine(
            a.axis, a.scale, (a.shift - leaf(leaves, "1.bias")) / leaf(leaves, "1.weight") + leaf(leaves, "1.bias")
        )
    ),
    "eps is forgotten": affine_mutant(
        lambda a, leaves: Affine(
            a.axis,
            a.scale,
            (a.shift - leaf(leaves, "1.bias"))
            * (leaf(leaves, "running_var") + 1e-5).sqrt()
            * leaf(leaves, "running_var").rsqrt()
            + leaf(leaves, "1.bias"),
        )
    ),
    "beta is forgotten": affine_mutant(lambda a, leaves: Affine(a.axis, a.scale, a.shift - leaf(leaves, "1.bias"))),
    "channels are reversed": affine_mutant(lambda a, leaves: Affine(a.axis, a.scale, a.shift.flip(0))),
}


def scale_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain.ChainAffine, "is_exact", lambda _: True)


def bias_scale_of_the_wrong_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bias.insert_call

    def call(before: Any, origin: Any, target: Any, node: Any, scale: Any, *rest: Any) -> Any:
        wrong = scale * 2 if isinstance(scale, float) else before.args[1].args[1]
        return right(before, origin, target, node, wrong, *rest)

    monkeypatch.setattr(bias, "insert_call", call)


def weight_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    right = weight.insert_call

    def call(before: Any, origin: Any, target: Any, *args: Any) -> Any:
        return right(before, origin, target, *args[:3], 1 - args[3], *args[4:])

    monkeypatch.setattr(weight, "insert_call", call)


def old_bias_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plan_integer_bias", "plan_float_bias"):
        right = getattr(fold, name)

        def without(context: Any, operator: Any, real: Any, *rest: Any, right: Any = right) -> Any:
            less = Expression(torch.sub, (real, context.expression(operator.bias)))
            return right(context, operator, less, *rest)

        monkeypatch.setattr(fold, name, without)


INSTALL = MUTANTS | {
    "scale is forgotten": scale_is_forgotten,
    "bias is read with the input's scale": bias_scale_of_the_wrong_tensor,
    "old bias is forgotten": old_bias_is_forgotten,
    "weight's scales are along another axis": weight_axis,
}
ONLY_LINEAR = {"scale is forgotten", "old bias is forgotten", "weight's scales are along another axis"}
"""In a convolution's chain the scale is 1, and the old bias is zero."""
ONLY_WHOLE = {"bias is read with the input's scale", "weight's scales are along another axis"}


def which(mutant: str) -> list[tuple[str, str]]:
    layer = "linear" if mutant in ONLY_LINEAR else "conv2d, relu"
    return [(q, layer) for q in ("A", "B per channel") if q != "A" or mutant not in ONLY_WHOLE]


@pytest.mark.parametrize(("mutant", "quantizer", "layer"), [(m, *case) for m in INSTALL for case in which(m)])
def test_mutant(mutant: str, quantizer: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the mutant, test_every_chain_is_folded folds and proves these."""
    before, x = made(quantizer, layer)
    INSTALL[mutant](monkeypatch)
    result = foldproof.fold_qat(before, (x,))
    assert not result.folded and result.verdict.kind is Kind.PROVED  # nothing was rewritten
    (declined,) = result.declined
    assert "REFUTED: a different function" in declined.reason and "counterexample:" in declined.reason
