"""Writes through views, which change what the program reads by another name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foldproof import Kind, prove

from .programs import normal

X = normal(4, 4)

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "another dtype": lambda m: m.view(torch.int8),
    "another dtype, of a part": lambda m: m[1:].view(torch.uint8),
    "prims.transpose": lambda m: torch.ops.prims.transpose(m, [1, 0]),
    "prims.view_of": torch.ops.prims.view_of,
    "prims.split_dim": lambda m: torch.ops.prims.split_dim(m, 0, 2),
    "prims.collapse_view": lambda m: torch.ops.prims.collapse_view(m, 0, 1),
    "prims.broadcast_in_dim": lambda m: torch.ops.prims.broadcast_in_dim(m, [4, 4], [0, 1]),
    "Inductor's": lambda m: torch.ops.inductor._reinterpret_tensor(m, (16,), (1,), 0),
    "a transposition": lambda m: m.t(),
    "a slice": lambda m: m[:, 1:],
}


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("name", VIEWS)
def test_a_mask_that_is_written_through_a_view(name: str, value: int) -> None:
    def written(x: Tensor) -> Tensor:
        mask = x > 0
        VIEWS[name](mask).fill_(value)
        return mask.to(x.dtype) * x

    for x in (X, -X.abs(), X.abs()):
        verdict = prove(written, lambda x: x.relu(), (x,))
        assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN, Kind.ROUNDING), verdict


@pytest.mark.parametrize("name", ["another dtype", "prims.transpose", "a transposition"])
def test_a_mask_that_is_read_through_a_view(name: str) -> None:
    def viewed(x: Tensor) -> Tensor:
        return VIEWS[name](x > 0).to(x.dtype) * 2

    verdict = prove(viewed, lambda x: VIEWS[name](x > 0).to(x.dtype) + VIEWS[name](x > 0).to(x.dtype), (X,))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("name", ["a transposition", "a slice"])
def test_an_equal_write_is_proved(name: str) -> None:
    def written(x: Tensor) -> Tensor:
        mask = x > 0
        VIEWS[name](mask).fill_(True)
        return torch.where(mask, x, 0)

    def selected(x: Tensor) -> Tensor:
        mask = x > 0
        VIEWS[name](mask).fill_(True)
        return mask.to(x.dtype) * x

    verdict = prove(written, selected, (X,))
    assert verdict.kind is Kind.PROVED, verdict
