"""A port in several configurations: one verdict, the first that is no proof, and what coincides in all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.claim import Claim, Scope
from foldproof.verdict import ApproximationStep, Proof, Verdict, weakest


class Heads(nn.Module):
    """Queries and keys, whose heads may be grouped, and the scores."""

    def __init__(self, heads: int, groups: int, size: int) -> None:
        super().__init__()
        self.size, self.repeats = size, heads // groups
        self.q, self.k = nn.Linear(6, heads * size, bias=False), nn.Linear(6, groups * size, bias=False)

    def repeated(self, k: Tensor) -> Tensor:
        return k.repeat_interleave(self.repeats, -3)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (f(x).unflatten(-1, (-1, self.size)).transpose(-3, -2) for f in (self.q, self.k))
        return q @ self.repeated(k).transpose(-2, -1)


class Tiled(Heads):
    def repeated(self, k: Tensor) -> Tensor:
        return k.repeat(self.repeats, 1, 1)


def scores(heads: int, groups: int, size: int = 2, port: type[Heads] = Tiled) -> Any:
    return Heads(heads, groups, size), port(heads, groups, size), (torch.randn(5, 6),), dict


HIDING = {"heads": 3, "groups": 3}
SHOWING = {"heads": 4, "groups": 2}


def test_what_one_configuration_hides_another_shows() -> None:
    alone = foldproof.prove_configurations(scores, [HIDING])
    assert alone.kind is Kind.PROVED
    assert any(note.startswith("sizes coincide") and "not grouped" in note for note in alone.notes), alone
    both = foldproof.prove_configurations(scores, [HIDING, SHOWING])
    assert both.kind is Kind.REFUTED and both.notes[-1] == "in the configuration heads=4, groups=2", both


def test_one_verdict_for_all() -> None:
    settings = [{**HIDING, "port": Heads}, {**SHOWING, "size": 4, "port": Heads}]
    verdict = foldproof.prove_configurations(scores, settings)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    assert not any(note.startswith("sizes coincide") for note in verdict.notes), verdict
    assert verdict.notes[-1].startswith("in 2 configurations: heads=3, groups=3, "), verdict
    with pytest.raises(FoldproofError, match="at least one"):
        foldproof.prove_configurations(scores, [])


def test_the_weakest_of_proofs() -> None:
    """A proof within rounding at one size is none without it at all, whichever bound is the weaker."""

    def verdict(kind: Kind, log2_error: float, *steps: ApproximationStep) -> Verdict:
        proof = Proof(log2_error, 1, 1, 1, (7,), jumping=("floor",) * bool(steps))
        return Verdict(kind, kind.value, Claim(Scope.ALL), proof=proof, steps=steps)

    step = ApproximationStep("a constant", 1e-8)
    for bounds in ((-50.0, -40.0), (-40.0, -50.0)):
        exact, within = verdict(Kind.PROVED, bounds[0]), verdict(Kind.PROVED_WITHIN, bounds[1], step)
        for order in ([exact, within], [within, exact]):
            found = weakest(order)
            assert found.kind is Kind.PROVED_WITHIN and found.reason == "PROVED_WITHIN" and found.steps == (step,)
            assert found.proof is not None and found.proof.log2_error == -40.0 and found.proof.jumping == ("floor",)
