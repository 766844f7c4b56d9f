"""Calls that nothing reads are dropped, unless they do something."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind


class Unread(nn.Module):
    """A branch whose result is thrown away, beside one that is returned."""

    def __init__(self, folds: bool) -> None:
        super().__init__()
        self.unread = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.used = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) if folds else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        self.unread(x)
        result: Tensor = self.used(x)
        return result


@pytest.mark.parametrize("folds", [True, False], ids=["beside a fold", "alone"])
@pytest.mark.parametrize("lowered", [False, True], ids=["exported", "graph module"])
def test_an_unread_branch_is_dropped(folds: bool, lowered: bool) -> None:
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(Unread(folds).eval(), (x,))
    assert sum("batch_norm" in str(node.target) for node in program.graph.nodes) == 1 + folds
    given = program.module() if lowered else program
    result = foldproof.fuse(given, (x,))
    assert result.verdict.kind is Kind.PROVED
    assert sum(result.operators_after.values()) == 1
    assert not result.declined
    after = result.program if lowered else result.program.module()
    torch.testing.assert_close(after(x), program.module()(x))


def test_an_unread_call_that_does_something_stays() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = nn.Buffer(torch.zeros(()))

        def forward(self, x: Tensor, size: Tensor) -> Tensor:
            self.count.add_(1)
            torch.nn.functional.dropout(x, 0.5, training=True)  # it advances the generator
            torch._check(size.item() > 0)
            return x.sigmoid()

    inputs = torch.randn(3), torch.tensor(2)
    program = torch.export.export(Counts().eval(), inputs)
    result = foldproof.fuse(program, inputs)
    assert result.operators_after == result.operators_before
