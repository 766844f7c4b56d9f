"""No false alarm on equal formulas, no false calm on wrong ones; `benchmarks/compare_pairs.py` has all of them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.compare_pairs import CORRECT_AT, compare, is_calm, is_visible
from foldproof import Kind
from foldproof import compare as compare_programs
from foldproof.comparison.distance import truth_distance
from foldproof.comparison.judge import Outputs
from zoo.formulas import FORMULAS, INPUTS, Program


class Of(Program):
    def __init__(self, function: object) -> None:
        super().__init__(function, ())  # type: ignore[arg-type]


@pytest.mark.parametrize("at", CORRECT_AT)
@pytest.mark.parametrize("name", ["log_softmax", "tanh", "interpolate", "norm", "layer_norm"])
def test_equal_formulas_are_rounding_whichever_is_the_reference(name: str, at: str) -> None:
    formula = FORMULAS[name]
    one, other = formula.program(formula.function), formula.program(formula.equal)
    for seed in range(2):
        assert compare(formula, one, other, at, seed).kind is Kind.ROUNDING
        assert compare(formula, other, one, at, seed).kind is Kind.ROUNDING


@pytest.mark.parametrize("at", INPUTS)
@pytest.mark.parametrize("name", FORMULAS)
def test_of_a_wrong_formula_it_is_not_said_that_neither_side_is_wrong(name: str, at: str) -> None:
    formula = FORMULAS[name]
    right = formula.program(formula.function)
    for bug, function in formula.wrong.items():
        wrong = formula.program(function)
        if is_visible(formula, wrong, at):
            assert not is_calm(compare(formula, right, wrong, at, 0))
            # A reference in a lower precision rounds by as much as it says.
            assert bug == "in bfloat16" or not is_calm(compare(formula, wrong, right, at, 0))


def test_a_careless_formula_in_a_plain_function_is_read_too() -> None:
    formula = FORMULAS["log_softmax"]
    other = formula.program(formula.equal)
    found = compare(formula, formula.program(formula.function), lambda x: other(x), "1e3", 0)
    assert found.kind is Kind.ROUNDING and any("loses more" in note for note in found.verdict.notes)


def test_a_careless_formula_with_a_mistake_is_refuted() -> None:
    formula = FORMULAS["log_softmax"]
    wrong = Of(lambda x: x * (1 + 1e-6) - torch.logsumexp(x, -1, keepdim=True))
    assert compare(formula, formula.program(formula.function), wrong, "1e3", 0).kind is Kind.REFUTED


def test_a_mistake_within_a_coarse_floor_is_refuted_by_its_graph() -> None:
    x = torch.randn(4, 64) + 1e4
    found = compare_programs(
        Of(lambda x: x - torch.logsumexp(x, -1, keepdim=True)),
        Of(lambda x: x - torch.logsumexp(x, -1, keepdim=True) + 2e-4),
        (x,),
        trials=4,
        locate=False,
    )
    assert found.kind is Kind.REFUTED


def _outputs(reference: Tensor, candidate: Tensor, exact: Tensor) -> Outputs:
    return Outputs([reference], [candidate], [exact], ["output 0"])


def test_no_number_is_infinitely_far() -> None:
    x = torch.ones(3)
    found = truth_distance([_outputs(x, torch.tensor([1.0, math.nan, 1.0]), x.double())] * 2)
    assert found is not None and found.candidate == math.inf and found.nearer == "reference"
    assert "inf times" not in str(found) and "no number" in found.summary
    overflow = truth_distance([_outputs(x * math.inf, x * math.inf, x.double() * 1e39)])
    assert overflow is not None and overflow.reference == 0


def test_training_mode_comes_first() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    found = compare_programs(model, copy.deepcopy(model).eval(), (torch.randn(8, 4),), trials=2, locate=False)
    assert str(found).startswith("Caution: the ")
    assert "BatchNorm1d 1" in found.training and found.summary.splitlines()[0] == f"Caution: {found.training}"


def test_three_lines() -> None:
    x = torch.randn(8, 64)
    found = compare_programs(
        Of(lambda x: torch.tanh(x).mean(-1)), Of(lambda x: torch.tanh(x) @ x.new_full((64,), 1 / 64)), (x,), trials=4
    )
    assert found.kind is Kind.ROUNDING and 2 <= len(found.summary.splitlines()) <= 3


def test_no_more_is_said_than_was_watched() -> None:
    """Nothing corresponds: not one operator of the reference is in the candidate."""
    found = compare_programs(
        Of(lambda x: F.gelu(x)), Of(lambda x: 0.5 * x * (1 + torch.erf(x * 0.5**0.5))), (torch.randn(8, 64),), trials=2
    )
    assert "every operator" not in found.found and "only the candidate has" in found.found


class Masked(nn.Module):
    """Attention on scores with a mask that is added; the first rows of the first sequence are masked wholly."""

    def __init__(self, attend: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.attend(x, mask)


ATTENTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "eager": lambda x, mask: torch.softmax(x @ x.transpose(-1, -2) * 0.25 + mask, -1) @ x,
    "in one product": lambda x, mask: torch.softmax(torch.baddbmm(mask, x * 0.25, x.transpose(-1, -2)), -1) @ x,
    "sdpa": lambda x, mask: F.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], attn_mask=mask[:, None], scale=0.25
    )[:, 0],
}


@pytest.mark.parametrize("masked", [torch.finfo(torch.float32).min, -1e9])
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(ATTENTIONS, 2)))
def test_rows_that_a_mask_empties(one: str, other: str, masked: float) -> None:
    x, allowed = torch.randn(3, 8, 16), torch.ones(3, 8, 8, dtype=torch.bool).tril()
    allowed[0, :, :3] = False
    inputs = (x, torch.where(allowed, 0.0, masked))
    found = compare_programs(Masked(ATTENTIONS[one]), Masked(ATTENTIONS[other]), inputs, trials=2, locate=False)
    assert (found.kind is Kind.ROUNDING and is_calm(found)) or found.identical
    wrong = lambda x, mask: ATTENTIONS[other](x, mask) * (1 + 0.5 * (mask.amax(-1, keepdim=True) < 0))  # noqa: E731
    assert not is_calm(compare_programs(Masked(ATTENTIONS[one]), Masked(wrong), inputs, trials=2, locate=False))


@pytest.mark.parametrize("seed", range(5))
def test_verdicts_are_the_same_for_other_seeds(seed: int) -> None:
    formula = FORMULAS["layer_norm"]
    right, equal, wrong = (formula.program(f) for f in (formula.function, formula.equal, formula.wrong["epsilon 1e-2"]))
    for at in ("0", "1e3"):
        assert compare(formula, right, equal, at, seed).kind is Kind.ROUNDING
        assert compare(formula, right, wrong, at, seed).kind is Kind.REFUTED
        assert compare(formula, wrong, right, at, seed).kind is Kind.REFUTED


def test_a_side_that_is_no_number_is_farther_and_no_precision_explains_it() -> None:
    x = torch.randn(4, 8)
    found = compare_programs(Of(lambda x: x * 2), Of(lambda x: (x * 2).where(x != x.max(), math.nan)), (x,), trials=1)
    assert found.kind is Kind.REFUTED and "in 1 element " in found.verdict.reason
    assert found.truth_distance is not None and found.truth_distance.nearer == "reference"
    assert "explained" not in found.verdict.reason
