"""Channels that are one number for all inputs: what is cut out of a network, and what stays."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, largest_error, run
from torch import Tensor, nn
from torch.export import Dim

import foldproof
from foldproof import Kind
from foldproof.fusion import DEFAULT, FuseResult
from foldproof.fusion.examples import functional, made

PASSES = (*DEFAULT, "dead_channels")


def block(inputs: int, outputs: int, groups: int = 1, size: int = 3) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]


def prune(model: nn.Module, *dead: int) -> None:
    """Give these channels of all normalisations a scale of 0 and a negative shift."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight[list(dead)] = 0
                part.bias[list(dead)] = -1


def network() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    tail = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 5)]
    model, inputs = made(nn.Sequential(*block(3, 8), *block(8, 8), *block(8, 8, size=1), *tail), (2, 3, 8, 8))
    prune(model, 1, 2, 5)
    return model, inputs


def channels(result: FuseResult) -> list[tuple[int, ...]]:
    weights = [t for t in result.program.state_dict.values() if t.dim() > 1]
    return sorted(tuple(weight.shape) for weight in weights)


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
def test_a_network_gets_smaller(form: str) -> None:
    model, inputs = network()
    program = FORMS[form](torch.export.export(model, inputs))
    result = foldproof.fuse(program, inputs, passes=PASSES)
    last = (5, 5 * 16) if form == "training IR" else (5 * 16, 5)
    assert channels(result) == sorted([(5, 3, 3, 3), (5, 5, 3, 3), (5, 5, 1, 1), last]) and not result.declined
    assert result.verdict.kind is Kind.PROVED, result.verdict
    assert str(result.verdict.claim).startswith("all inputs, for these parameter values")
    assert result.verdict.claim is not None and result.verdict.claim.choices == ("max_pool2d_with_indices",)
    assert sum(rewrite.saving.bytes > 0 for rewrite in result.rewrites) == len(result.rewrites)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6  # type: ignore[arg-type]


def test_has_to_be_asked_for() -> None:
    result = foldproof.fuse(*network())
    assert (8, 3, 3, 3) in channels(result)
    assert str(result.verdict.claim).startswith("all inputs and all parameters")


def test_the_claim_is_for_these_weights_and_all_inputs() -> None:
    model, inputs = made(nn.Sequential(*block(3, 8), nn.Conv2d(8, 4, 3, padding=1)), (2, 3, 8, 8))
    prune(model, 0, 7)
    result = foldproof.fuse(model, inputs, passes=PASSES)
    for verdict in (result.verdict, result.rewrites[-1].verdict):
        assert verdict.kind is Kind.PROVED and verdict.claim is not None
        assert verdict.claim.all_inputs and not verdict.claim.all_parameters and not verdict.claim.choices


def test_of_a_dynamic_size() -> None:
    model, inputs = made(nn.Sequential(*block(3, 8), nn.Conv2d(8, 4, 3, padding=1)), (2, 3, 8, 8))
    prune(model, 3)
    shapes = ({0: Dim("b", min=2), 2: Dim("h", min=3), 3: Dim("w", min=3)},)
    result = foldproof.fuse(model, inputs, passes=PASSES, dynamic_shapes=shapes)
    assert (4, 7, 3, 3) in channels(result) and result.verdict.kind is Kind.PROVED
    other = (torch.randn(3, 3, 5, 11),)
    assert largest_error([model(*other)], run(result.program, other)) < 2e-6  # type: ignore[arg-type]


def test_a_batch_of_any_size_is_flattened() -> None:
    model, inputs = network()
    result = foldproof.fuse(model, inputs, passes=PASSES, dynamic_shapes=({0: Dim("b", min=2)},))
    assert (5, 80) in channels(result) and result.verdict.kind is Kind.PROVED


def test_some_can_go_and_others_stay() -> None:
    """Zeros are padded beside a positive number, and beside 0."""
    model, inputs = made(nn.Sequential(*block(3, 8), nn.Conv2d(8, 4, 3, padding=1)), (2, 3, 8, 8))
    prune(model, 3, 4)
    with torch.no_grad():
        model[1].bias[4] = 1  # type: ignore[index,operator,union-attr]
    result = foldproof.fuse(model, inputs, passes=PASSES)
    assert (4, 7, 3, 3) in channels(result) and result.verdict.kind is Kind.PROVED
    [declined] = result.declined
    assert declined.reason.startswith("1 of its 7 channels are the same numbers for all inputs, and stay: conv2d_1")


def test_normalisations_are_folded_before() -> None:
    model, inputs = made(nn.Sequential(*block(3, 8), nn.Conv2d(8, 4, 1)), (2, 3, 8, 8))
    with torch.no_grad():
        model[0].weight[[2, 3]] = 0  # type: ignore[index,operator,union-attr]
    [declined] = foldproof.fuse(model, inputs, passes=["dead_channels"]).declined
    assert "batch_norm (batch_norm) reads them" in declined.reason and "'batch_norm'" in declined.hint
    assert (4, 6, 1, 1) in channels(foldproof.fuse(model, inputs, passes=PASSES))


def test_a_weight_of_two_layers() -> None:
    """Each call gets a weight of its own, which is smaller than the common one."""

    def function(m: Any, x: Tensor) -> Tensor:
        return m.c(m.b(m.a(x).relu()).relu()) + m.a(x.tanh())

    conv = partial(nn.Conv2d, 6, 6, 1)
    model, inputs = functional(((2, 6, 7, 8),), function, a=conv, b=conv, c=conv)()
    with torch.no_grad():
        model.a.weight[[0, 5]] = 0
    result = foldproof.fuse(model, inputs, passes=PASSES)
    assert channels(result) == [(4, 6, 1, 1), (6, 4, 1, 1), (6, 6, 1, 1), (6, 6, 1, 1)]
    assert result.verdict.kind is Kind.PROVED
    assert any("which is not cut alike" in declined.reason for declined in result.declined)


def test_channels_last() -> None:
    model, inputs = network()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = (inputs[0].contiguous(memory_format=torch.channels_last),)
    result = foldproof.fuse(model, inputs, passes=PASSES)
    assert (5, 80) in channels(result) and result.verdict.kind is Kind.PROVED
    assert largest_error([model(*inputs)], run(result.program, inputs)) < 2e-6  # type: ignore[arg-type]
    kept = next(t for name, t in result.program.state_dict.items() if tuple(t.shape) == (5, 5, 3, 3))
    assert kept.is_contiguous(memory_format=torch.channels_last)
