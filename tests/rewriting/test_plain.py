"""Regions without gradients are inlined where none can exist, and assertions about constants are dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind


class Angles(nn.Module):
    """A table of positions, computed without gradients, of a linear's output."""

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        if isinstance(frequencies, nn.Parameter):
            self.frequencies = frequencies
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        places = torch.arange(3) if places is None else places
        with torch.no_grad():
            angles = (places[:, None].float() * self.frequencies.to(torch.float32)).cos()
        return self.linear(x).relu() * angles


X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def regions(program: Any) -> int:
    return sum("wrap_with_set_grad_enabled" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("given", [(), (torch.arange(3),)], ids=["positions of its own", "positions that are an input"])
def test_a_region_of_a_buffer_is_inlined(given: tuple[Tensor, ...]) -> None:
    model = Angles(torch.rand(4)).eval()
    program = torch.export.export(model, (X, *given))
    assert regions(program) == 1
    result = foldproof.fuse(program, (X, *given))
    assert regions(result.program) == 0 and result.verdict.kind is Kind.PROVED
    assert ("aten.cos.default" in result.operators_after) == bool(given)
    assert torch.allclose(result.program.module()(X, *given), model(X, *given), atol=1e-6)


@pytest.mark.parametrize(
    ("frequencies", "given"),
    [(nn.Parameter(torch.rand(4)), ()), (torch.rand(4), (torch.rand(3),))],
    ids=["of a parameter", "of an input that may have a gradient"],
)
def test_a_region_that_holds_a_gradient_back_stays(frequencies: Tensor, given: tuple[Tensor, ...]) -> None:
    program = torch.export.export(Angles(frequencies).eval(), (X, *given))
    result = foldproof.fuse(program, (X, *given))
    assert regions(program) == regions(result.program) == 1


def _gradients(call: Callable[..., Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(call(X).square().sum(), parameters))


def test_gradients_stay() -> None:
    model = Angles(torch.rand(4)).eval()
    fused: Any = foldproof.fuse(model, (X,)).program
    program = fused.module()
    expected = _gradients(model, list(model.parameters()))
    assert all(map(torch.allclose, _gradients(program, list(program.parameters())), expected))


def test_assertions_about_constants_are_dropped_and_those_about_values_stay() -> None:
    class Converts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            return x.relu().to(torch.float32) + self.table.sin().to(torch.float32).cumsum(0)

    program = torch.export.export(Converts(), (X,))
    count = {"aten._assert_tensor_metadata.default": 2}
    assert count.items() <= foldproof.fuse(program, (X,)).operators_before.items()
    result = foldproof.fuse(program, (X,))
    assert result.operators_after["aten._assert_tensor_metadata.default"] == 1
    assert result.verdict.kind is Kind.PROVED


def test_what_is_inlined_is_proved_without_any_other_rewrite() -> None:
    model = Angles(torch.rand(4)).eval()
    program = torch.export.export(model, (X, torch.arange(3)))
    result = foldproof.fuse(program, (X, torch.arange(3)), passes=["batch_norm"])
    assert result.rewrites == () and regions(result.program) == 0
    assert result.verdict.kind is Kind.PROVED and "nothing was rewritten" not in result.verdict.reason
