"""Arithmetic modulo p against Python's whole numbers and fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from foldproof.field import BALANCED_TERMS, EXACT_TERMS, PRIMES, Field, draw_primes

FIELDS = [Field(p) for p in (PRIMES[0], PRIMES[12345], PRIMES[-1])]
EXTREME = [
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    2.0**-1074 * 3,
    2.0**-1022,
    2.0**-1022 - 2.0**-1074,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    0.1,
    1 / 3,
    -1e-5,
    2.0**53 + 2,
    math.pi,
]
finite = st.floats(allow_nan=False, allow_infinity=False)


def fraction_modulo(x: float | int, p: int) -> int:
    fraction = Fraction(x)
    return fraction.numerator * pow(fraction.denominator, -1, p) % p


def residue(field: Field, x: Tensor) -> list[int]:
    """The canonical form, after a check that ``x`` holds balanced residues."""
    assert x.dtype == torch.float64
    assert torch.equal(x, x.round())
    assert not x.numel() or float(x.abs().max()) <= field.p / 2 + 2
    return [int(v) for v in field.canonical(x).reshape(-1)]


def test_primes() -> None:
    assert len(PRIMES) == 38_635
    assert all(2**19 < p < 2**20 for p in PRIMES)
    assert all(p % d for p in (PRIMES[0], PRIMES[777], PRIMES[-1]) for d in range(2, 1025))
    drawn = draw_primes(32, random.Random(0))
    assert len(set(drawn)) == 32 and set(drawn) <= set(PRIMES)
    assert drawn == draw_primes(32, random.Random(0)) != draw_primes(32, random.Random(1))


@given(finite)
@settings(max_examples=300)
@example(5e-324)
@example(-0.0)
@example(1.7976931348623157e308)
def test_a_number_is_embedded_exactly(x: float) -> None:
    for field in FIELDS:
        wanted = fraction_modulo(x, field.p)
        assert field.number(x) == wanted
        assert residue(field, field.embed(torch.tensor([x], dtype=torch.float64))) == [wanted]


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_embedded_exactly(x: int) -> None:
    for field in FIELDS:
        assert field.number(x) == x % field.p
        assert residue(field, field.embed(torch.tensor([x]))) == [x % field.p]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_float_dtype(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    tiny = torch.tensor([info.tiny, info.smallest_normal / 4, info.max, info.min, info.eps], dtype=dtype)
    x = torch.cat([torch.tensor(EXTREME, dtype=torch.float64).clamp(info.min, info.max).to(dtype), tiny])
    for field in FIELDS:
        assert residue(field, field.embed(x)) == [fraction_modulo(float(v), field.p) for v in x.double()]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64], ids=str)
def test_every_whole_dtype(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, -1, 127, -128, 2**31 - 1, 2**62 + 12345]).to(dtype)
    for field in FIELDS:
        assert residue(field, field.embed(x)) == [int(v) % field.p for v in x]


def test_infinities_are_embedded_as_zero() -> None:
    x = torch.tensor([math.inf, -math.inf, 3.0])
    assert residue(FIELDS[0], FIELDS[0].embed(x)) == [0, 0, 3]


def test_the_shape_is_kept() -> None:
    for shape in ((), (0, 3), (2, 3)):
        assert FIELDS[0].embed(torch.zeros(shape)).shape == shape


LIMIT = 2**53 - 2**20


@given(st.integers(-LIMIT, LIMIT))
@example(LIMIT)
@example(-LIMIT)
@settings(max_examples=300)
def test_reduce(x: int) -> None:
    for field in FIELDS:
        assert residue(field, field.reduce(torch.tensor([float(x)], dtype=torch.float64))) == [x % field.p]


def test_reduce_next_to_multiples_of_p() -> None:
    for field in FIELDS:
        quotients = [0, 1, 2, 2**20, 2**32 + 1, LIMIT // field.p - 1]
        around = [
            q * field.p + sign * (field.p // 2) + d for q in quotients for sign in (-1, 0, 1) for d in range(-2, 3)
        ]
        around += [-x for x in around]
        x = torch.tensor([float(v) for v in around], dtype=torch.float64)
        assert residue(field, field.reduce(x)) == [v % field.p for v in around]


@given(st.integers(-(2**50), 2**50), st.integers(-(2**31), 2**31))
@settings(max_examples=300)
@example(2**50, 2**30)
@example(-(2**50), -(2**30))
def test_what_is_reduced_is_below_half_of_p(x: int, quotient: int) -> None:
    for field in FIELDS:
        half = field.p // 2
        next_to_half = [min(max(quotient * field.p + d, -(2**50)), 2**50) for d in (half, -half, half + 1, -half - 1)]
        for v in (x, *next_to_half):
            assert abs(float(field.reduce(torch.tensor(float(v), dtype=torch.float64)))) <= half
        twice = field.reduce(field.reduce(torch.tensor(float(8 * x - 7 * (x > 0)), dtype=torch.float64)))
        assert abs(float(twice)) <= half


def test_reduce_of_large_tensors_and_of_views() -> None:
    field, generator = FIELDS[1], torch.Generator().manual_seed(0)
    x = torch.randint(-(2**52), 2**52, (300, 500), generator=generator).double()
    wanted = torch.remainder(x, field.p)
    for view in (x, x.t().contiguous().t(), x[:, ::3]):
        before = view.clone()
        reduced = field.reduce(view)
        assert torch.equal(view, before)
        assert torch.equal(field.canonical(reduced), torch.remainder(view, field.p))
    assert torch.equal(field.canonical(field.reduce_(x)), wanted)


@given(st.integers(1, 2**40))
def test_inverse(x: int) -> None:
    for field in FIELDS:
        for n in (1, 3):  # numbers take another route
            for inverse in residue(field, field.inverse(field.reduce(torch.full((n,), float(x), dtype=torch.float64)))):
                assert inverse * x % field.p == (1 if x % field.p else 0)


def test_inverse_of_zero() -> None:
    assert residue(FIELDS[0], FIELDS[0].inverse(torch.zeros(2, dtype=torch.float64))) == [0, 0]
    assert residue(FIELDS[0], FIELDS[0].inverse(torch.zeros((), dtype=torch.float64))) == [0]


@given(st.integers(-(10**6), 10**6), st.integers(0, 200))
def test_power(x: int, n: int) -> None:
    for field in FIELDS:
        base = field.reduce(torch.tensor([float(x)], dtype=torch.float64))
        assert residue(field, field.power(base, n)) == [pow(x, n, field.p)]


def test_one_reduction_is_enough_for_as_many_products_as_promised() -> None:
    for p in PRIMES[-1], PRIMES[0]:
        assert BALANCED_TERMS * (p // 2) ** 2 + p // 2 <= 2**50


def test_as_many_products_as_promised_add_up_exactly() -> None:
    """The largest residues there are, all of one sign, in a matrix product and a convolution."""
    for field in FIELDS:
        worst = float(field.p // 2 + 2)
        rows = torch.full((2, EXACT_TERMS), worst, dtype=torch.float64)
        total = EXACT_TERMS * int(worst) ** 2
        assert total < 2**53
        assert (rows @ rows.t()).flatten().tolist() == [float(total)] * 4
        kernel = rows.view(2, 2**8, 8, 8)
        assert torch.nn.functional.conv2d(kernel, kernel).flatten().tolist() == [float(total)] * 4
        assert residue(field, field.reduce(rows @ rows.t())) == [total % field.p] * 4
