"""References without a graph for all inputs: their operators are recorded as they run."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, compare
from foldproof.comparison.graph import Graph
from foldproof.errors import FoldproofError


class Settling(nn.Module):
    """A loop that ends by a value."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.factor = nn.Linear(8, 8), factor

    def forward(self, x: Tensor) -> dict[str, Any]:
        for _ in range(10):
            x = torch.tanh(self.linear(x)) * self.factor
            if x.abs().mean() < 0.3:
                break
        return {"out": x, "rounds": 1}


class Careful(Settling):
    def forward(self, x: Tensor) -> dict[str, Any]:
        for _ in range(10):
            x = torch.tanh((x[:, None] * self.linear.weight).sum(-1) + self.linear.bias)
            if x.abs().mean() < 0.3:
                break
        return {"out": x, "rounds": 1}


def inputs() -> tuple[Tensor]:
    return (torch.randn(3, 8),)


def test_a_loop_that_ends_by_a_value() -> None:
    found = compare(Settling(), Careful(), inputs(), trials=6)
    assert found.kind is Kind.ROUNDING and not found.identical
    assert any("recorded as they ran" in note for note in found.verdict.notes)
    assert found.truth_distance is not None and 0 < found.truth_distance.reference < 1e-6


def test_a_mistake_in_such_a_loop_is_located() -> None:
    found = compare(Settling(), Settling(1.001), inputs(), trials=3)
    assert found.kind is Kind.REFUTED and found.verdict.difference is not None
    assert found.verdict.difference.operator == "aten.mul.Tensor"
    assert "test_recorded.py" in (found.verdict.difference.source or "")


class Mixed(nn.Module):
    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.enabled = nn.Linear(8, 8), enabled

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            y = self.linear(x)
        with torch.no_grad():
            out: Tensor = y.float() + self.linear(x)
        return out


def test_regions_under_autocast_are_followed() -> None:
    same = compare(Mixed(), torch.compile(Mixed(), backend="aot_eager"), inputs(), trials=3, locate=False)
    assert same.kind is Kind.ROUNDING
    other = compare(Mixed(False), Mixed(), inputs(), trials=3, locate=False)
    assert other.kind is Kind.REFUTED and "bfloat16" in other.verdict.reason


class Leaving(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "arrays":
            return torch.from_numpy(numpy.sin(x.numpy()))
        return x * torch.full_like(x, x.abs().max().item()) if x.sum() > 0 or x.sum() <= 0 else x


@pytest.mark.parametrize("how", ["arrays", "numbers"])
def test_what_leaves_torch_is_not_recorded(how: str) -> None:
    with pytest.raises(FoldproofError, match="can't be exported"):
        compare(Leaving(how), lambda x: x.sin(), inputs(), trials=2, locate=False)


def test_nothing_is_left_in_the_module() -> None:
    model = Settling()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    compare(model, Careful(), inputs(), trials=2, locate=False)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert set(vars(model)) == set(vars(Settling()))


class Scaled(nn.Module):
    """Computes with a number that it reads from a tensor, and decides by it."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.wrong = nn.Linear(8, 8), wrong

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().max().item()
        step = 2.0 / largest - 1.0
        y = self.linear(x * step * self.wrong)
        if y.sum() > 0:
            y = y * 1.5
        out: Tensor = torch.where(y > 0, y, -largest) ** 2
        return out


def test_a_number_that_is_read_from_a_tensor_is_followed() -> None:
    graph = Graph(Scaled(), inputs(), {}, may_record=True)
    assert graph.recorded
    x = inputs()
    wide = Scaled().double()(x[0].double())
    assert torch.allclose(graph.run_in_float64(x, {})[0], wide, rtol=1e-12, atol=0)


def test_a_wrong_use_of_such_a_number_is_refuted() -> None:
    x = inputs()
    assert compare(Scaled(), Scaled(), x, trials=4).identical
    by_tensor = torch.compile(Scaled(), backend="aot_eager")
    assert compare(Scaled(), by_tensor, x, trials=4, locate=False).kind is Kind.ROUNDING
    assert compare(Scaled(), Scaled(1 + 2e-5), x, trials=4, locate=False).kind is Kind.REFUTED


class Counted(nn.Module):
    """The same, by its parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.table(x)
        return y * math.tanh(y.sum().item() / 20) if y.sum() > 0 or y.sum() <= 0 else y


class Leaked(nn.Module):
    """Computes with a number in Python's own functions."""

    def forward(self, x: Tensor) -> Tensor:
        factor = math.tanh(x.sum().item() / 20)
        return x * factor if x.sum() > 0 or x.sum() <= 0 else x


def test_a_number_that_leaves_torch_is_not_followed() -> None:
    with pytest.raises(FoldproofError, match="can't be exported"):
        compare(Leaked(), Leaked(), inputs(), trials=2, locate=False)
    with pytest.raises(FoldproofError, match="can't be exported"):
        compare(Counted(), Counted(), (torch.arange(6),), trials=2, locate=False)
