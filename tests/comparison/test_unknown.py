"""Operators whose rounding is not known: they forbid no verdict that does not hang on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, compare


@pytest.fixture(scope="module", autouse=True)
def twice() -> Iterator[None]:
    library = torch.library.Library("foldproof_unknown", "DEF")  # until it is collected
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    library.impl("twice", torch.empty_like, "Meta")
    yield
    del library


class Twice(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.factor = nn.Linear(16, 16), factor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.foldproof_unknown.twice(self.linear(x) * self.factor)
        return out


def test_one_that_gives_the_same_bits_is_no_reason() -> None:
    found = compare(Twice(), Twice(1 + 2e-6), (torch.randn(4, 16),), trials=3)
    assert found.kind is Kind.REFUTED and found.sources[0].operator == "aten.mul.Tensor"


def test_a_difference_far_beyond_what_the_reference_rounds_is_wrong() -> None:
    wrong = Twice(1.1)
    assert compare(Twice(), lambda x: wrong(x).numpy(), (torch.randn(4, 16),), trials=3).kind is Kind.REFUTED


def test_a_small_one_is_undecided() -> None:
    other = Twice(1 + 4e-6)
    found = compare(Twice(), lambda x: other(x).numpy(), (torch.randn(4, 16),), trials=3)
    assert found.kind is Kind.UNDECIDED and "foldproof_unknown.twice.default may round" in found.verdict.reason
