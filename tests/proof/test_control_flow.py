"""Exported programs with control flow: branches and loops are run as Python runs them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from foldproof import fuse, prove
from foldproof.verdict import Kind

X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.linear(x))
        (out,) = torch.cond(x.sum() > 0, lambda a: (a * 2,), lambda a: (a * self.factor,), (y,))
        chosen: Tensor = out
        return chosen


class Loop(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = while_loop(lambda i, a: i < self.steps, lambda i, a: (i + 1, a * a + 1), (torch.tensor(0), x))[1]
        return out


class Scan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = scan(lambda carried, row: (carried + row, carried * row), torch.zeros(4), x)[1]
        return rows


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (X,))


@pytest.mark.parametrize("model", [Branches(3.0), Loop(3), Scan()], ids=["cond", "while_loop", "scan"])
def test_a_program_equals_its_decomposition(model: nn.Module) -> None:
    program = exported(model)
    verdict = prove(program, program.run_decompositions(), (X,))
    assert verdict.kind is Kind.PROVED, verdict


def test_the_other_branch_is_searched() -> None:
    torch.manual_seed(0)
    before, after = Branches(3.0), Branches(3.1)
    after.load_state_dict(before.state_dict())
    verdict = prove(exported(before), exported(after), (X,))
    assert verdict.kind is Kind.REFUTED, verdict
    verdict = prove(exported(before), exported(before), (X,))
    assert verdict.kind is Kind.PROVED and "choices" in str(verdict.claim), verdict


def test_loops_run_to_their_end() -> None:
    assert prove(exported(Loop(2)), lambda x: (x * x + 1) ** 2 + 1, (X,)).kind is Kind.PROVED
    assert prove(exported(Loop(3)), exported(Loop(2)), (X,)).kind is Kind.REFUTED


class NoTrip(nn.Module):
    """A loop whose result is written to; by data, there are trips or none."""

    def __init__(self, by_data: bool, copies: bool) -> None:
        super().__init__()
        self.by_data, self.copies = by_data, copies

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.by_data:
            (y,) = while_loop(lambda a: a.sum() < 2, lambda a: (a + 5.0,), (x,))
        else:
            y = while_loop(lambda i, a: i < 0, lambda i, a: (i + 1, a * 2.0), (torch.tensor(0), x))[1]
        y = y + 1 if self.copies else y.add_(1)
        return x * 1.0, y


def _written(x: Tensor) -> tuple[Tensor, Tensor]:
    x.add_(1)
    return x * 1.0, x


def test_a_loop_without_trips_returns_copies() -> None:
    program = exported(NoTrip(False, False))
    assert prove(program, lambda x: (x * 1.0, x + 1), (X,)).kind is Kind.PROVED
    for wrong in (_written, lambda x: (x + 1, x + 1)):
        assert prove(program, wrong, (X,)).kind is Kind.REFUTED


@pytest.mark.parametrize("x", [torch.zeros(3, 4), torch.ones(3, 4)], ids=["some trips", "none"])
def test_a_loop_with_trips_by_data(x: Tensor) -> None:
    programs = [torch.export.export(NoTrip(True, copies), (x,)) for copies in (False, True)]
    assert prove(*programs, (x,)).kind is Kind.PROVED


def test_a_branch_that_returns_its_operand() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.cond(x.sum() > 0, lambda a: a.clone(), lambda a: a * 2, (x,))
            return x * 1.0, y.add_(1)

    program = exported(Branch())
    assert prove(program, lambda x: (x * 1.0, torch.where(x.sum() > 0, x, 2 * x) + 1), (X,)).kind is Kind.PROVED
    assert prove(program, _written, (X,)).kind is Kind.REFUTED


class Doubling(nn.Module):
    """Without an end where the sum is not positive."""

    def __init__(self, limit: float, again: bool) -> None:
        super().__init__()
        self.limit, self.again = limit, again

    def forward(self, x: Tensor) -> Tensor:
        def body(a: Tensor) -> tuple[Tensor]:
            return (a + a if self.again else a * 2.0,)

        out: Tensor = while_loop(lambda a: a.sum() < self.limit, body, (x,))[0]
        return out


def doubling(x: Tensor) -> Tensor:
    while x.sum() < 10:
        x = x * 2
    return x


def test_loops_without_an_end_at_some_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldproof.graph.interpreter.MAX_TRIPS", 100)
    monkeypatch.setattr("foldproof.rounding.float64.MAX_OPERATORS", 1000)
    base = exported(Doubling(10.0, False))
    equal, wrong = (exported(Doubling(limit, True)) for limit in (10.0, 50.0))
    assert prove(base, equal, (X,)).kind is Kind.PROVED
    assert prove(base, wrong, (X,)).kind is Kind.REFUTED
    assert prove(doubling, lambda x: doubling(x * 1), (X / 8,)).kind is Kind.PROVED
    verdict = prove(base, base, (-X,))
    assert verdict.kind is Kind.UNDECIDED and "does not end" in verdict.reason, verdict


def test_a_scan_carries_and_collects() -> None:
    def by_hand(x: Tensor) -> Tensor:
        return torch.stack([x[0] * 0, x[0] * x[1], (x[0] + x[1]) * x[2]])

    assert prove(exported(Scan()), by_hand, (X,)).kind is Kind.PROVED
    assert prove(exported(Scan()), lambda x: by_hand(x).flip(0), (X,)).kind is Kind.REFUTED


def test_layers_beside_control_flow_are_fused() -> None:
    fused = fuse(exported(Branches(3.0)), (X,))
    assert len(fused.rewrites) == 1 and fused.verdict.kind is Kind.PROVED, fused.verdict
