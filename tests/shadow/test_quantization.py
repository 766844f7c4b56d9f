"""Quantization on residues: one meaning in every form it is written in, and another for every other attribute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foldproof.shadow import SamplePoint, Semantics, Shadow, Undecided, draw_variable

aten = torch.ops.aten
decomposed = torch.ops.quantized_decomposed

SCALE, ZERO, LOW, HIGH = 0.1, 3, -128, 127


@pytest.fixture
def x() -> Shadow:
    value = torch.randn(3, 4)
    return Shadow(value, draw_variable(SamplePoint(seed=1, k=2), value, data=False))


def same(a: Any, b: Any) -> bool:
    fields = a.residue.point.fields
    parts = zip(fields, a.residue.parts, b.residue.parts)
    return all(torch.equal(f.canonical(p), f.canonical(q)) for f, p, q in parts)


def pair(x: Tensor, scale: Any = SCALE, zero: Any = ZERO, low: int = LOW, high: int = HIGH) -> Tensor:
    q = decomposed.quantize_per_tensor(x, scale, zero, low, high, torch.int8)
    return decomposed.dequantize_per_tensor(q, scale, zero, low, high, torch.int8)


def channels(x: Tensor, scales: Tensor, axis: int) -> Tensor:
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    q = decomposed.quantize_per_channel(x, scales, zeros, axis, LOW, HIGH, torch.int8)
    return decomposed.dequantize_per_channel(q, scales, zeros, axis, LOW, HIGH, torch.int8)


def test_one_meaning_in_every_form(x: Shadow) -> None:
    quantized = pair(x)
    scale, zero = torch.tensor([SCALE], dtype=torch.float64), torch.tensor([ZERO])
    assert same(quantized, pair(x, scale, zero))
    assert same(quantized, torch.fake_quantize_per_tensor_affine(x, SCALE, ZERO, LOW, HIGH))
    by_hand = (torch.clamp(torch.round(x / SCALE) + ZERO, LOW, HIGH) - ZERO) * SCALE
    assert same(quantized, by_hand)
    one = torch.ones(3) * 0.5
    assert same(channels(x, one, 0), pair(x, 0.5, 0))
    assert same(channels(x, one, 0), torch.fake_quantize_per_channel_affine(x, one, one.int() * 0, 0, LOW, HIGH))
    assert same(channels(x, one, -2), channels(x, one, 0))


@pytest.mark.parametrize(
    "other", [{"scale": 0.1001}, {"zero": 2}, {"low": -127}, {"high": 126}], ids=lambda change: next(iter(change))
)
def test_every_attribute_counts(x: Shadow, other: dict[str, Any]) -> None:
    assert not same(pair(x), pair(x, **other))


def test_axis_counts() -> None:
    value = torch.randn(3, 3)
    x = Shadow(value, draw_variable(SamplePoint(seed=1, k=2), value, data=False))
    scales = torch.tensor([0.1, 0.2, 0.3])
    assert not same(channels(x, scales, 0), channels(x, scales, 1))


def test_integers_carry_residues_through_views_only(x: Shadow) -> None:
    q = decomposed.quantize_per_tensor(x, SCALE, ZERO, LOW, HIGH, torch.int8)
    assert isinstance(q, Shadow) and q.dtype == torch.int8
    back = decomposed.dequantize_per_tensor(q.t().reshape(12), SCALE, ZERO, LOW, HIGH, torch.int8)
    assert same(back, pair(x).t().reshape(12))
    with pytest.raises(Undecided, match="wraps around"):
        q + q


def test_a_rounding_is_not_the_identity(x: Shadow) -> None:
    assert not same(pair(x), x)
    assert not same(pair(x), pair(pair(x), scale=0.2))


def test_an_observer_that_still_learns_is_undecided(x: Shadow) -> None:
    statistics = torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([SCALE]), torch.tensor([0])
    with pytest.raises(Undecided, match="disable_observer"):
        torch.fused_moving_avg_obs_fake_quant(
            x, torch.tensor([1]), torch.tensor([1]), *statistics, 0.01, LOW, HIGH, -1, False, False
        )


def test_a_scale_that_is_not_of_its_statistics_is_undecided(x: Shadow) -> None:
    """The operator does not read it, and writes over it."""
    statistics = torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([SCALE]), torch.tensor([0])
    with pytest.raises(Undecided, match="not that of its running extremes"):
        torch.fused_moving_avg_obs_fake_quant(
            x, torch.tensor([0]), torch.tensor([1]), *statistics, 0.01, LOW, HIGH, -1, False, False
        )


def test_float8_and_infinities_are_undecided(x: Shadow) -> None:
    with pytest.raises(Undecided, match="rounds once more"):
        decomposed.quantize_per_tensor(x, SCALE, 0, -448, 448, torch.float8_e4m3fn)
    with pytest.raises(Undecided, match="infinite"):
        pair(x.masked_fill(torch.eye(3, 4) > 0, float("inf")))


def within(point: SamplePoint) -> SamplePoint:
    return SamplePoint(point.seed, len(point.fields), Semantics(within=point.take_roundings()))


def shadow(point: SamplePoint, data: bool) -> Shadow:
    value = torch.linspace(-2, 2, 12).reshape(3, 4)
    return Shadow(value, draw_variable(point, value, data))


def test_a_rounded_parameter_can_be_read_as_exact() -> None:
    point = SamplePoint(seed=5, k=2)
    pair(shadow(point, data=False))
    again = within(point)
    assert len(again.semantics.within) == 1
    x = shadow(again, data=False)
    assert same(pair(x), x)
    assert not same(pair(x, scale=0.2), x), "another rounding than the one that is named"
    (step,) = again.steps
    assert step.bound(step.whole) == pytest.approx(SCALE / 2)


def test_a_step_that_is_cut_off_says_so() -> None:
    point = SamplePoint(seed=5, k=2)
    pair(shadow(point, data=False), low=-10, high=10)
    again = within(point)
    x = shadow(again, data=False)
    assert same(pair(x, low=-10, high=10), x)
    (step,) = again.steps
    assert step.bound(step.whole) == pytest.approx(2 - 0.7)  # round(2 / 0.1) + 3 is cut off at 10


def test_data_is_never_read_as_exact() -> None:
    point = SamplePoint(seed=5, k=2)
    pair(shadow(point, data=True))
    assert not point.take_roundings()
