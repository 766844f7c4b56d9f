"""One noise floor for many inputs: where the given inputs' holds elsewhere, and where it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.comparison.graph import Graph
from foldproof.comparison.judge import Judged, Outputs, judge, judge_alike
from foldproof.thresholds import RUNS_AT_GIVEN_INPUTS
from foldproof.verdict import Kind


class Chain(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the seed of each perturbed run of a whole graph."""
    made: list[int] = []
    original = Graph.call_perturbed

    def counted(self: Graph, calls: object, seed: int, *args: object, **kwargs: object) -> object:
        made.append(seed)
        return original(self, calls, seed, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Graph, "call_perturbed", counted)
    return made


def test_an_even_floor_serves_all_inputs(runs: list[int]) -> None:
    torch.manual_seed(0)
    model = Chain()

    def by_hand(x: Tensor) -> Tensor:
        halves = model.first.weight[:, :32] @ x[:, :32].T + model.first.weight[:, 32:] @ x[:, 32:].T
        return model.second((halves.T + model.first.bias).relu())

    found = foldproof.compare(model, by_hand, (torch.randn(8, 64),), locate=False)
    assert found.verdict.kind is Kind.ROUNDING
    assert found.verdict.rounding is not None and found.verdict.rounding.trials == 24
    assert len(runs) <= RUNS_AT_GIVEN_INPUTS


@pytest.mark.parametrize(
    "fault",
    [
        lambda y: y + 3e-5 * (y > 1.2),  # at other inputs only
        lambda y: y * (1 + 2e-5),
        lambda y: torch.where(y.abs() < 0.02, 0.0, y),
    ],
)
def test_a_difference_that_it_does_not_explain_is_refuted(fault: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Chain()
    x = torch.randn(8, 64)
    assert foldproof.compare(model, lambda x: fault(model(x)), (x,), locate=False).verdict.kind is Kind.REFUTED


def _outputs(scale: Tensor | float, error: float, seed: int) -> Outputs:
    """The outputs of two sides at ``scale``; the candidate is off by ``error`` roundings in one element."""
    exact = torch.randn(256, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale
    reference = exact.float()
    candidate = reference.clone()
    candidate[3] += error * 2.0**-24 * float(torch.as_tensor(scale).mean())
    return Outputs([reference], [candidate], [exact], ["output 0"])


def _known(scale: Tensor | float) -> Judged:
    outputs = _outputs(scale, 1.0, 0)

    def perturb(seed: int, amplitude: float) -> list[Tensor]:
        noise = torch.rand(256, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return [outputs.float64[0] + amplitude * noise * 2.0**-24 * scale]

    return judge(outputs, perturb, RUNS_AT_GIVEN_INPUTS)


class TestAlike:
    def test_alike(self) -> None:
        assert judge_alike(_outputs(1.0, 1.0, 1), _known(1.0)) is not None

    def test_a_difference_that_is_too_large(self) -> None:
        assert judge_alike(_outputs(1.0, 9.0, 1), _known(1.0)) is None

    @pytest.mark.parametrize("scale", [0.25, 4.0])
    def test_inputs_of_other_sizes(self, scale: float) -> None:
        """The reference rounds less, or more: a floor of the other size would hide differences, or raise alarms."""
        assert judge_alike(_outputs(scale, 1.0, 1), _known(1.0)) is None

    def test_an_uneven_floor(self) -> None:
        """An element that moved a lot there need not do so here."""
        scale = torch.ones(256, dtype=torch.float64)
        scale[3] = 100.0
        assert judge_alike(_outputs(scale, 1.0, 1), _known(scale)) is None

    def test_another_shape(self) -> None:
        known = _known(1.0)
        here = _outputs(1.0, 1.0, 1)
        part = Outputs([here.reference[0][:9]], [here.candidate[0][:9]], [here.float64[0][:9]], here.names)
        assert judge_alike(part, known) is None

    def test_nan(self) -> None:
        here = _outputs(1.0, 1.0, 1)
        here.candidate[0][0] = float("nan")
        assert judge_alike(here, _known(1.0)) is None

    def test_none_is_known(self) -> None:
        assert judge_alike(_outputs(1.0, 1.0, 1), None) is None
