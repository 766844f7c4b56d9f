"""Cut points: depth is no obstacle to a proof, and no place of a cut proves unequal programs equal."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foldproof import Kind, prove
from foldproof.program import as_program
from foldproof.proof.attempt import attempt
from foldproof.proof.obligation import ProofObligation
from foldproof.proof.programs import _obligation
from foldproof.shadow import Cuts, Recording

DEPTH = 20
SIZE = 6


class Chain(nn.Module):
    """Blocks whose degree doubles: 2^20 at the end, more than any number of primes decides."""

    def __init__(self, block: Callable[[Tensor, Tensor, int], Tensor], depth: int = DEPTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(torch.randn(SIZE, SIZE) / SIZE for _ in range(depth))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        for i, weight in enumerate(self.weights):
            x = self.block(x, weight, i)
        return x


def plain(x: Tensor, w: Tensor, i: int) -> Tensor:
    return x * (x @ w)


def transposed(x: Tensor, w: Tensor, i: int) -> Tensor:
    return ((w.t() @ x.t()).contiguous() * x.t()).t()


def twice(x: Tensor, w: Tensor, i: int) -> Tensor:
    return x * (x @ w) * 0.5 + 0.5 * ((x @ w) * x)


def cloned(x: Tensor, w: Tensor, i: int) -> Tensor:
    return (x * (x @ w)).clone().contiguous(memory_format=torch.contiguous_format).clone()


def scaled_and_back(x: Tensor, w: Tensor, i: int) -> Tensor:
    return (x * (x @ w)) * 2 / 2


def in_place(x: Tensor, w: Tensor, i: int) -> Tensor:
    y = x @ w
    return y.mul_(x)


def in_parts(x: Tensor, w: Tensor, i: int) -> Tensor:
    left, right = (x @ w).split([2, SIZE - 2], dim=1)
    return torch.cat([left, right], dim=1) * x


def written_into(x: Tensor, w: Tensor, i: int) -> Tensor:
    out = torch.empty_like(x)
    out[:, 2:] = (x @ w)[:, 2:]
    out[:, :2] = (x @ w)[:, :2]
    return out * x


def padded(x: Tensor, w: Tensor, i: int) -> Tensor:
    x = functional.pad(x, (0, SIZE + 2 - x.shape[1]))
    out = x * (x @ functional.pad(w, (0, 2, 0, 2)))
    return out if i < DEPTH - 1 else out[:, :SIZE]


def folded(x: Tensor, w: Tensor, i: int) -> Tensor:
    return (x * 0.25) @ (w * 4.0) * x


def infinite(x: Tensor, w: Tensor, i: int) -> Tensor:
    scores = (x @ w).masked_fill(torch.eye(SIZE, dtype=torch.bool)[: len(x)], -torch.inf)
    return x * torch.softmax(scores, dim=-1) * (x @ w)


def infinite_differently(x: Tensor, w: Tensor, i: int) -> Tensor:
    mask = torch.zeros(SIZE, SIZE).masked_fill(torch.eye(SIZE, dtype=torch.bool), -torch.inf)[: len(x)]
    scores = (w.t() @ x.t()).t() + mask
    return (x @ w) * torch.softmax(scores, dim=-1) * x


INPUTS = (torch.linspace(-1, 1, 4 * SIZE).reshape(4, SIZE).clone(),)
EQUAL = [plain, transposed, twice, cloned, scaled_and_back, in_place, in_parts, written_into, padded, folded]


@pytest.mark.parametrize("other", EQUAL)
@pytest.mark.parametrize("one", [plain, folded])
def test_equal_programs_are_proved_at_any_depth(
    one: Callable[[Tensor, Tensor, int], Tensor], other: Callable[[Tensor, Tensor, int], Tensor]
) -> None:
    verdict = prove(Chain(one), Chain(other), INPUTS)
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and verdict.claim.all_parameters
    assert verdict.proof is not None and verdict.proof.cuts > 0


def test_infinite_values_are_not_cut_and_are_no_obstacle() -> None:
    verdict = prove(Chain(infinite), Chain(infinite_differently), INPUTS)
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("at", [0, DEPTH // 2, DEPTH - 1])
@pytest.mark.parametrize("other", [transposed, in_place])
def test_a_change_at_any_depth_is_not_proved(other: Callable[[Tensor, Tensor, int], Tensor], at: int) -> None:
    def changed(x: Tensor, w: Tensor, i: int) -> Tensor:
        return other(x, w if i != at else w.t(), i)

    verdict = prove(Chain(plain), Chain(changed), INPUTS)
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


def test_swapped_layers_are_not_proved() -> None:
    class Swapped(Chain):
        def forward(self, x: Tensor) -> Tensor:
            order = [*range(8), 9, 8, *range(10, DEPTH)]
            for i in order:
                x = self.block(x, self.weights[i], i)
            return x

    assert prove(Chain(plain), Swapped(plain), INPUTS).kind is not Kind.PROVED


def _obligation_of(one: nn.Module, other: nn.Module) -> ProofObligation:
    return _obligation(as_program(one), as_program(other), INPUTS, {}, None)


def _compare(one: nn.Module, other: nn.Module, groups: tuple[dict[int, int], dict[int, int]], seed: int) -> bool:
    return attempt(_obligation_of(one, other), seed, 4, True, see=partial(Cuts, groups)).equal


@pytest.mark.parametrize("seed", range(24))
def test_no_places_prove_different_programs(seed: int) -> None:
    """Groups are random here, so that most places do not correspond."""
    rng = random.Random(seed)
    change = rng.randrange(12)

    def changed(x: Tensor, w: Tensor, i: int) -> Tensor:
        return transposed(x, w, i) if i != change else transposed(x, w, i) + 0.5 * x

    groups = tuple({place: rng.randrange(20) for place in rng.sample(range(60), 30)} for _ in range(2))
    assert not _compare(Chain(plain, 12), Chain(changed, 12), groups, seed)


def test_places_that_do_not_correspond_prove_nothing() -> None:
    one, other = Chain(plain, 12), Chain(transposed, 12)
    recorded = attempt(_obligation_of(one, other), 0, 1, True, see=Recording)
    assert isinstance(recorded.values_seen, Recording)
    first, second = recorded.values_seen.groups()
    assert _compare(one, other, (dict(first), dict(second)), 1)
    shifted = {place: group + 1 for place, group in second.items()}
    assert not _compare(one, other, (dict(first), shifted), 1)


class Heads(nn.Module):
    """Blocks of attention with several head sizes; 1/√d is one factor, or a factor of each operand."""

    def __init__(self, heads: tuple[int, ...], split: bool, wrong: float = 1.0) -> None:
        super().__init__()
        self.heads, self.split, self.wrong = heads, split, wrong
        width = math.lcm(*heads)
        torch.manual_seed(0)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in heads)
        self.mixes = nn.ModuleList(nn.Linear(width, 3 * width) for _ in heads)

    def forward(self, x: Tensor) -> Tensor:
        for head, norm, mix in zip(self.heads, self.norms, self.mixes):
            # Both programs compute with 1/√5, which need not be read as a root.
            parts = mix(norm(x * 0.4472135954999579)).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (-1, head)).transpose(1, 2) for t in parts)
            if self.split:
                scores = (q * head**-0.25) @ (k * (head**-0.25 * self.wrong)).mT
            else:
                scores = q @ k.mT / math.sqrt(head)
            x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return x


@pytest.mark.parametrize("heads", [(6, 8, 6, 8), (6, 10, 15, 6)])
def test_roots_of_several_numbers_are_read_at_any_depth(heads: tuple[int, ...]) -> None:
    x = torch.randn(1, 3, math.lcm(*heads))
    programs = Heads(heads, False).eval(), Heads(heads, True).eval()
    assert prove(*programs, (x,)).kind is Kind.PROVED_WITHIN
    assert prove(programs[0], Heads(heads, True, 1.01).eval(), (x,)).kind is Kind.REFUTED
