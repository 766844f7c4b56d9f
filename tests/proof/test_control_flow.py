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


def test_a_scan_carries_and_collects() -> None:
    def by_hand(x: Tensor) -> Tensor:
        return torch.stack([x[0] * 0, x[0] * x[1], (x[0] + x[1]) * x[2]])

    assert prove(exported(Scan()), by_hand, (X,)).kind is Kind.PROVED
    assert prove(exported(Scan()), lambda x: by_hand(x).flip(0), (X,)).kind is Kind.REFUTED


def test_layers_beside_control_flow_are_fused() -> None:
    fused = fuse(exported(Branches(3.0)), (X,))
    assert len(fused.rewrites) == 1 and fused.verdict.kind is Kind.PROVED, fused.verdict
