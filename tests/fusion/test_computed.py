"""Constants that a program computes at every call."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, assert_unchanged, largest_error, run, snapshot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import foldproof
from foldproof import Kind
from foldproof.fusion import plan
from foldproof.fusion.examples import Example, functional
from foldproof.rewriting.expression import Expression

_matrix = partial(torch.randn, 6, 6)
_vector = partial(torch.randn, 6)


def wrapped(
    wrap: Callable[[nn.Module], nn.Module], make: Callable[[], nn.Module], *shape: int
) -> Callable[[], Example]:
    def made() -> Example:
        torch.manual_seed(0)
        return nn.Sequential(wrap(make()), nn.ReLU()).eval(), (torch.randn(shape),)

    return made


def standardised(m: Any, x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(m.a.weight, dim=(1, 2, 3), keepdim=True, correction=0)
    return F.conv2d(x, (m.a.weight - mean) / torch.sqrt(variance + 1e-5), m.a.bias).relu()


def relative_bias(m: Any, x: Tensor) -> Tensor:
    index = torch.tensor([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]])
    return (x @ x.transpose(-1, -2) + m.w[index.view(-1)].view(4, 4, 6).permute(2, 0, 1)[:2].unsqueeze(0)).softmax(-1)


def causal(m: Any, x: Tensor) -> Tensor:
    return (m.a(x) @ x.transpose(-1, -2) + torch.full((4, 4), -math.inf).triu(1)).softmax(-1)


def masked(m: Any, x: Tensor) -> Tensor:
    mask = torch.ones(4, 4, dtype=torch.bool).tril().logical_not()
    return (m.a(x) @ x.transpose(-1, -2)).masked_fill(mask, -1e9).softmax(-1)


def rotary(m: Any, x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(4).float(), 1 / (10000 ** (torch.arange(0, 6, 2) / 6)))
    angles = torch.cat([angles, angles], -1)
    return (m.a(x) * angles.cos() + x.flip(-1) * angles.sin()).relu()


CASES: dict[str, Callable[[], Example]] = {
    "weight_norm": wrapped(weight_norm, partial(nn.Linear, 4, 5), 3, 4),
    "weight_norm as a parametrization": wrapped(parametrizations.weight_norm, partial(nn.Conv1d, 4, 5, 3), 3, 4, 7),
    "spectral_norm": wrapped(spectral_norm, partial(nn.Linear, 4, 5), 3, 4),
    "spectral_norm as a parametrization": wrapped(parametrizations.spectral_norm, partial(nn.Linear, 4, 5), 3, 4),
    "orthogonal": wrapped(parametrizations.orthogonal, partial(nn.Linear, 4, 4), 3, 4),
    "equalized learning rate": functional(((3, 6),), lambda m, x: F.linear(x, m.w * (2 / 6) ** 0.5).relu(), w=_matrix),
    "standardised": functional(((2, 3, 6, 6),), standardised, a=partial(nn.Conv2d, 3, 4, 3)),
    "an interpolated table of positions": functional(
        ((1, 8, 6, 6),),
        lambda m, x: (x + F.interpolate(m.p, size=(6, 6), mode="bilinear")).relu(),
        p=partial(torch.randn, 1, 8, 4, 4),
    ),
    "relative positions": functional(((1, 2, 4, 6),), relative_bias, w=_matrix),
    "a causal mask": functional(((1, 4, 6),), causal, a=partial(nn.Linear, 6, 6)),
    "a boolean mask": functional(((1, 4, 6),), masked, a=partial(nn.Linear, 6, 6)),
    "rotary tables": functional(((1, 4, 6),), rotary, a=partial(nn.Linear, 6, 6)),
    "batch_norm of a weight": functional(
        ((2, 3, 6, 6),),
        lambda m, x: F.conv2d(x, F.batch_norm(m.w.reshape(1, 4, -1), None, None, training=True).view(4, 3, 2, 2)),
        w=partial(torch.randn, 4, 3, 2, 2),
    ),
}

LEFT_AS_THEY_ARE: dict[str, Callable[[], Example]] = {
    "a transposed weight": functional(((3, 6),), lambda m, x: (x @ m.w.t()).relu(), w=_matrix),
    "an expanded token": functional(
        ((3, 4, 6),), lambda m, x: torch.cat([m.b.expand(3, 1, 6), x], 1).relu(), b=_vector
    ),
    "numbers": functional(((3, 6),), lambda m, x: (x.sin() @ m.w + torch.zeros(6)).relu(), w=_matrix),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_it_is_computed_once(name: str, form: str) -> None:
    model, inputs = CASES[name]()
    program = FORMS[form](torch.export.export(model, inputs))
    before = snapshot(program)
    result = foldproof.fuse(program, inputs)
    assert result.verdict.kind is Kind.PROVED, result.verdict
    assert result.declined == () and any(r.rule == "computed constant" for r in result.rewrites)
    assert foldproof.explain(result.program, inputs) == ()  # type: ignore[arg-type]
    assert not any(r.rule == "computed constant" for r in foldproof.fuse(result.program, inputs).rewrites)  # type: ignore[arg-type]
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6  # type: ignore[arg-type]
    assert_unchanged(before, program)


@pytest.mark.parametrize("name", LEFT_AS_THEY_ARE)
def test_what_costs_nothing_stays(name: str) -> None:
    model, inputs = LEFT_AS_THEY_ARE[name]()
    assert not any(r.rule == "computed constant" for r in foldproof.fuse(model, inputs).rewrites)


def test_a_weight_that_changes_is_listed() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y = F.linear(x, m.n.running_mean.exp().expand(6, 6))
        m.n.running_mean.mul_(0.9)
        return y.relu()

    model, inputs = functional(((3, 6),), function, n=partial(nn.BatchNorm1d, 6))()
    [declined] = foldproof.explain(model, inputs)
    assert declined.operator == "aten.exp.default"
    assert "can't be computed once in advance" in declined.reason and "written to by mul_" in declined.reason


def test_a_weight_in_few_bits_stays_so() -> None:
    """Weight-only quantization: the product of integers and scales would be as large as the weight was."""

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Buffer(torch.randint(-8, 8, (6, 6), dtype=torch.int8))
            self.scale = nn.Buffer(torch.rand(6, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.w.float() * self.scale).relu()

    result = foldproof.fuse(Quantized(), (torch.randn(3, 6),))
    assert result.rewrites == () and result.bytes_after == result.bytes_before


def test_a_large_table_is_listed() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return x * (m.b[:, None, None] * torch.ones(6, 1024, 1024)).sin()

    model, inputs = functional(((1, 1024, 1024),), function, b=_vector)()
    [declined] = foldproof.explain(model, inputs)
    assert "can't be computed once in advance: it would take 25165824 bytes" in declined.reason


def test_a_constant_that_two_layers_read_is_computed_once() -> None:
    model, inputs = functional(((3, 6),), lambda m, x: F.linear(F.linear(x, w := m.w.exp()).relu(), w), w=_matrix)()
    result = foldproof.fuse(model, inputs)
    assert [r.rule for r in result.rewrites] == ["computed constant"] and result.bytes_after == result.bytes_before


@pytest.mark.parametrize("wrong", [lambda w: w.exp() * 2, lambda w: w.exp().flip(0), lambda w: w * 1])
def test_a_wrong_constant_is_withdrawn(wrong: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = functional(((3, 6),), lambda m, x: F.linear(x, m.w.exp()).relu(), w=_matrix)()
    original = plan.NewConstant

    def broken(role: str, base: str, like: str, dtype: Any, expression: Any, **options: Any) -> Any:
        return original(role, base, like, dtype, Expression(wrong, (base,)), **options)

    monkeypatch.setattr(plan, "NewConstant", broken)
    result = foldproof.fuse(model, inputs)
    assert result.rewrites == ()
    assert "was withdrawn" in result.declined[0].reason


def test_calls_without_operands_are_no_reason_to_fail() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return (m.a(x) + torch.linspace(0, 1, 6).sin()).relu()

    model, inputs = functional(((3, 6),), function, a=partial(nn.Linear, 6, 6))()
    assert foldproof.fuse(model, inputs).verdict.kind is Kind.PROVED
    model, inputs = functional(((3, 6),), lambda m, x: m.a(x) * torch.hann_window(6), a=partial(nn.Linear, 6, 6))()
    assert foldproof.fuse(model, inputs).verdict.kind is Kind.PROVED
