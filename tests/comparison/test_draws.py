"""`compare` with a reference that draws random numbers: both sides start from the same state of the generators."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.rounding.float64 import Float64


class Dropping(nn.Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.first, self.second, self.p = nn.Linear(8, 8), nn.Linear(8, 8), p

    def forward(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.second(F.dropout(torch.tanh(self.first(x)), self.p, True))
        return dropped


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * 0.1 + torch.rand_like(x)


def data() -> tuple[Tensor]:
    return (torch.randn(4, 8, generator=torch.Generator().manual_seed(3)),)


def dropping() -> Dropping:
    torch.manual_seed(0)
    return Dropping()


def reassociated(x: Tensor) -> Tensor:
    return x + (torch.randn_like(x) * 0.1 + torch.rand_like(x))


def test_the_same_draws_differ_by_rounding() -> None:
    model = dropping()

    def other(x: Tensor) -> Tensor:
        hidden = x @ model.first.weight.t() + model.first.bias
        dropped: Tensor = model.second(F.dropout(hidden.tanh(), 0.5, True) * (1 + 1e-7))
        return dropped

    found = foldproof.compare(model, other, data())
    assert found.kind is Kind.ROUNDING, found.verdict
    assert any("began at the same state of generators" in note for note in found.verdict.notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normal_and_uniform_numbers(dtype: torch.dtype) -> None:
    """Generators give others in double precision, so that float64 results need those of the program's dtype."""
    (x,) = data()
    found = foldproof.compare(Noisy().to(dtype), reassociated, (x.to(dtype),))
    assert found.kind is Kind.ROUNDING, found.verdict


def test_inductor_draws_the_same_if_told_to() -> None:
    model = dropping()
    with torch._inductor.config.patch(fallback_random=True):
        assert foldproof.compare(model, "inductor", data(), trials=4).kind is Kind.ROUNDING
    found = foldproof.compare(model, "inductor", data(), trials=4)
    assert found.kind is Kind.UNDECIDED and "fallback_random" in found.verdict.reason


def test_two_calls_in_a_row_go_on_drawing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3)).train()
    found = foldproof.compare(model, copy.deepcopy(model), data())
    assert found.kind is Kind.ROUNDING, found.verdict


def _mask_of_one_draw(model: Dropping) -> Callable[[Tensor], Tensor]:
    """The mask of the first trial, as a compiler that takes it for a constant computes with it."""
    masks: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        masks.append(F.dropout(torch.ones(4, 8), 0.5, True))
        return x

    foldproof.compare(model, watched, data(), trials=1)
    mask = masks[0]
    return lambda x: model.second(torch.tanh(model.first(x)) * mask)


def _other_probability(model: Dropping) -> Callable[[Tensor], Tensor]:
    other = Dropping(0.4)
    other.load_state_dict(model.state_dict())
    return other


def _drawn_twice(model: Dropping) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        F.dropout(x, 0.5, True)
        found: Tensor = model(x)
        return found

    return run


def _wrong_scale(model: Dropping) -> Callable[[Tensor], Tensor]:
    return lambda x: model.second(F.dropout(torch.tanh(model.first(x)), 0.5, True) / 2)


@pytest.mark.parametrize("wrong", [_mask_of_one_draw, _other_probability, _drawn_twice, _wrong_scale])
@pytest.mark.parametrize("trials", [None, 1])
def test_other_draws_and_other_functions_are_never_rounding(
    wrong: Callable[[Dropping], Callable[[Tensor], Tensor]], trials: int | None
) -> None:
    model = dropping()
    found = foldproof.compare(model, wrong(model), data(), trials=trials)
    assert found.kind is Kind.UNDECIDED and "draws others or computes something else" in found.verdict.reason


def test_inputs_that_have_no_others_are_tried_with_other_draws() -> None:
    """A mask of one draw is right at one state; integers alone give no other inputs."""
    table = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))

    class Looked(nn.Module):
        def forward(self, i: Tensor) -> Tensor:
            return F.dropout(table[i], 0.5, True)

    places = torch.tensor([0, 0, 0])
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(3, 8), 0.5, True)
    found = foldproof.compare(Looked(), lambda i: table[i] * mask, (places,))
    assert found.kind is Kind.UNDECIDED, found.verdict


def test_a_candidate_alone_that_draws_is_random() -> None:
    model = dropping().eval()
    still = copy.deepcopy(model)
    still.p = 0.0
    found = foldproof.compare(still, model, data())
    assert found.kind is Kind.UNDECIDED and "random" in found.verdict.reason


def _rarely(x: Tensor) -> Tensor:
    return x * torch.bernoulli(torch.full_like(x, 0.9999))


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (lambda x: _rarely(3 * x), lambda x: x + x + x),
        (lambda x: 3 * x, lambda x: _rarely(x + x + x)),
        (_rarely, lambda x: _rarely(_rarely(x))),
        (lambda x: F.dropout(x, 0.5, True), lambda x: (F.dropout(x, 0.5, True), torch.rand(3))[0]),
    ],
)
def test_draws_that_hardly_show_are_seen_in_the_generator(
    reference: Callable[[Tensor], Tensor], candidate: Callable[[Tensor], Tensor]
) -> None:
    found = foldproof.compare(Applied(reference), candidate, data())
    assert found.kind is Kind.UNDECIDED and "generator of random numbers in another state" in found.verdict.reason


def test_draws_at_the_first_call_alone_are_no_difference() -> None:
    seen: list[Tensor] = []

    def candidate(x: Tensor) -> Tensor:
        if not seen:
            seen.append(torch.rand(3))
        return x * 3

    assert foldproof.compare(Applied(lambda x: x + x + x), candidate, data()).kind is Kind.ROUNDING


def test_draws_at_some_inputs_alone_are_draws() -> None:
    """The candidate draws others where the reference drops, which is at inputs that are not the given ones."""
    (x,) = data()
    limit = float(x.sum()) + 1e-3

    def dropping_above(x: Tensor, before: int) -> Tensor:
        if x.sum() > limit:
            torch.rand(before)
            return F.dropout(x, 0.5, True)
        return x * 2

    found = foldproof.compare(Applied(lambda x: dropping_above(x, 0)), lambda x: dropping_above(x, 1), (x,))
    assert found.kind is Kind.UNDECIDED, found.verdict


@pytest.mark.parametrize("seed", [1, 2])
def test_a_generator_that_the_program_makes_is_undecided(seed: int) -> None:
    """Its state moves on with every run of the graph, so that the noise floor is that of other numbers."""

    def drawn(x: Tensor, seed: int) -> Tensor:
        return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))

    found = foldproof.compare(Applied(lambda x: drawn(x, 1)), lambda x: drawn(x, seed) * (1 + 1e-7), data())
    assert found.kind is Kind.UNDECIDED and "generator of its own" in found.verdict.reason, found.verdict


def test_a_generator_of_its_own_at_some_inputs_is_undecided() -> None:
    (x,) = data()
    limit = float(x.sum()) + 1e-3

    def drawn(x: Tensor, seed: int) -> Tensor:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) if x.sum() > limit else 0
        return x * 2 + noise

    found = foldproof.compare(Applied(lambda x: drawn(x, 1)), lambda x: drawn(x, 2), data())
    assert found.kind is Kind.UNDECIDED, found.verdict


def test_numbers_of_elements_that_are_drawn_refute_nothing() -> None:
    def some(x: Tensor, before: int) -> Tensor:
        torch.rand(before)
        return x[torch.rand(4) > 0.5]

    found = foldproof.compare(Applied(lambda x: some(x, 0)), lambda x: some(x, 3), data())
    assert found.kind is Kind.UNDECIDED and "draws others" in found.verdict.reason, found.verdict


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.rand_like(x),
        lambda x: torch.randn(40, 7),
        lambda x: torch.bernoulli(x.abs().clamp(max=1)),
        lambda x: torch.empty(40, 7).uniform_(-1, 2),
        lambda x: torch.empty_like(x).normal_(1, 2),
        lambda x: torch.empty_like(x).bernoulli_(0.3),
        lambda x: torch.empty_like(x).exponential_(),
        lambda x: F.dropout(x, 0.3, True),
        lambda x: F.rrelu(x, 0.1, 0.3, True),
        lambda x: torch.randint(0, 9, (40, 7)),
        lambda x: torch.multinomial(x.abs(), 3),
    ],
)
def test_float64_draws_what_the_program_draws(draw: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(5)
    own = draw(x)
    torch.manual_seed(5)
    with Float64():
        wide = draw(x.double())
    assert wide.dtype == (torch.float64 if own.is_floating_point() else own.dtype)
    torch.testing.assert_close(wide, own.to(wide.dtype))


def of_python() -> float:
    return random.random()


def of_numpy() -> float:
    return float(np.random.random())


class Rarely(nn.Module):
    """Is 0 in one call of ten thousand, as Python or NumPy draws."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.linear, self.draw = nn.Linear(8, 8), draw

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x) * float(self.draw() > 1e-4)
        return found


@pytest.mark.parametrize("draw", [of_python, of_numpy])
def test_draws_of_python_and_numpy(draw: Callable[[], float]) -> None:
    torch.manual_seed(0)
    model = Rarely(draw)
    linear = model.linear

    def same(x: Tensor) -> Tensor:
        return model(x) * (1 + 1e-7)

    other = foldproof.compare(linear, same, data())
    assert other.kind is Kind.UNDECIDED and "draws more" in other.verdict.reason
    other = foldproof.compare(model, lambda x: linear(x) * (1 + 1e-7), data())
    assert other.kind is Kind.UNDECIDED


def test_the_generators_of_python_and_numpy_are_put_back() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    foldproof.compare(Rarely(of_numpy), Rarely(of_python), data(), trials=2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
