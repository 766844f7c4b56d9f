"""Claims: what they say, which of two is the weaker, and that they are made of what was varied."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.claim import IDENTITY, Claim, Held, Role, Scope, Why, meet

CHOSEN = Held("weight", Role.PARAMETER, Why.CHOSEN)
TOKENS = Held("input 1", Role.INPUT, Why.INTEGERS)
GENERAL = Claim(Scope.ALL, ("input 0",), ("weight",))

WORDS = {
    "all inputs and all parameters": GENERAL,
    "all inputs": Claim(Scope.ALL, ("input 0",)),
    "all inputs, for these parameter values": Claim(Scope.ALL, ("input 0",), held=(CHOSEN,)),
    "all other inputs and all parameters; held at their values: input 1 (integers)": Claim(
        Scope.ALL, ("input 0",), ("weight",), (TOKENS,)
    ),
    "the given inputs; held at their values: input 1 (integers)": Claim(Scope.ALL, held=(TOKENS,)),
    "all inputs and all parameters, where they make the same choices": Claim(
        Scope.ALL, ("input 0",), ("weight",), choices=("amax",)
    ),
    "all inputs and all parameters; the bounds are for these parameter values": Claim(
        Scope.ALL, ("input 0",), ("weight",), local_bounds=True
    ),
    "24 inputs of these sizes tried, for these parameter values": Claim(
        Scope.TRIED, ("input 0",), held=(CHOSEN,), points=24
    ),
    "the given inputs, for these parameter values": Claim(Scope.TRIED, held=(CHOSEN,), points=1),
    "the counterexample below": Claim(Scope.POINT, held=(CHOSEN,)),
}


@pytest.mark.parametrize("words", WORDS)
def test_words(words: str) -> None:
    assert str(WORDS[words]) == words


@pytest.mark.parametrize("claim", WORDS.values(), ids=str)
def test_meet_is_weaker_than_both(claim: Claim) -> None:
    for other in WORDS.values():
        both = claim.meet(other)
        for one in (claim, other):
            assert not both.is_general or one.is_general
            assert not both.all_inputs or one.all_inputs
            assert not both.all_parameters or one.all_parameters
            assert set(one.held) <= set(both.held) and set(one.choices) <= set(both.choices)
        assert both.is_general == other.meet(claim).is_general
    assert claim.meet(claim) == claim == claim.meet(IDENTITY)


def test_meet_of_many() -> None:
    assert meet([]) == IDENTITY and IDENTITY.is_general
    qualified = meet([GENERAL, WORDS["all inputs and all parameters, where they make the same choices"]])
    assert qualified.choices == ("amax",) and qualified.inputs == ("input 0",)


@pytest.mark.parametrize("claim", WORDS.values(), ids=str)
def test_only_what_was_varied_is_claimed(claim: Claim) -> None:
    names = {h.name for h in claim.held}
    assert not names & {*claim.inputs, *claim.parameters}
    assert claim.with_parameters_held().parameters == ()
    assert not claim.parameters or not claim.with_parameters_held().is_general


class Gather(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 3))
        self.register_buffer("places", torch.tensor([1, 2]))

    def forward(self, x: Tensor, at: Tensor, mask: Tensor, scale: float, *, bias: Tensor) -> Tensor:
        y: Tensor = self.table[at] + self.table[self.places].sum(0) * scale + x * mask + bias
        return y


def test_a_proof_claims_what_it_varied() -> None:
    module = Gather()
    given = (torch.randn(2, 3), torch.tensor([0, 4]), torch.tensor([[True], [False]]), 2.0)
    verdict = foldproof.prove(module, module, given, {"bias": torch.randn(3)})
    claim = verdict.claim
    assert claim is not None and verdict.kind is foldproof.Kind.PROVED
    assert claim.inputs == ("input 0", "bias") and claim.parameters == ("table",)
    assert {(h.name, h.why) for h in claim.held} == {
        ("input 1", Why.INTEGERS),
        ("input 2", Why.BOOLEANS),
        ("input 3", Why.PLAIN),
        ("places", Why.INTEGERS),
    }
    assert not claim.all_inputs and not claim.is_general and "all inputs" not in str(claim)
    assert claim.shapes == ("(2, 3) (2,) (2, 1) (3,)",)
