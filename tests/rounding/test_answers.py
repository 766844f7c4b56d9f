"""Answers on what operators round, against float32 kernels on the calls that the operator database leads to."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.rounding.answers import Rounding, describe_rounding, find_rounding
from foldproof.rounding.bound import bound_errors
from foldproof.rounding.float64 import Float64
from foldproof.rounding.floor import Floor
from foldproof.rounding.noise import Noise
from foldproof.shadow import RULES
from tests.shadow.calls import calls_of, copied, is_float

aten = torch.ops.aten
OPERATORS = sorted(RULES, key=str)

VIEWS_OF_COMPLEX = {aten.view.dtype, aten.view_as_real.default, aten.view_as_complex.default}

UNINITIALIZED = {aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default}

EMBEDDING_BAGS = {aten._embedding_bag.default, aten._embedding_bag_forward_only.default}
"""Their other results are notes for the way back, which hang on the kernel that made them."""

SLACK = 2.0
"""Magnitudes are of first order, and drifts are one standard deviation of a random walk."""

RUNS = 12
WITHIN = 16.0
"""Standard deviations, which a dozen runs know to a fifth; a wrong answer is off by powers of ten."""


def test_every_operator_with_a_rule_has_an_answer() -> None:
    assert not [operator for operator in RULES if find_rounding(operator) is None]


def test_magnitudes_and_parts_say_what_they_are() -> None:
    told = [o for o in OPERATORS if find_rounding(o) in (Rounding.MAGNITUDE, Rounding.PARTS)]
    assert all(": " in describe_rounding(operator) for operator in told)


def narrow(x: Any) -> Any:
    """In float32, Python numbers, too: both sides are given the same."""
    if isinstance(x, Tensor) and x.dtype == torch.float64:
        return x.float()
    return float(torch.tensor(x, dtype=torch.float32)) if type(x) is float else x


def widen(x: Any) -> Any:
    return tree_map(lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, copied(x))


def test_a_float64_program_takes_other_elements_than_a_float32_one() -> None:
    x, size = torch.randn(2, 3, 259, 2), [222, 3]
    single = aten.upsample_nearest2d.default(x, size).double()
    double = aten.upsample_nearest2d.default(x.double(), size)
    assert not torch.equal(single, double)
    for dtype, expected in ((torch.float32, single), (torch.float64, double)):
        float64 = Float64()
        float64.dtype = dtype
        with float64:
            found = aten.upsample_nearest2d.default(x, size)
        assert torch.equal(found, expected)


class Computed(NamedTuple):
    """A call's arguments in float64, the float32 kernel's results, and the float64 ones."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    real: Any
    float64: Any

    @property
    def dtype(self) -> torch.dtype:
        """That of the kernel's first result that is a float."""
        floats = [x.dtype for x in tree_leaves(self.real) if is_float(x)]
        return floats[0] if floats else torch.float32


def compute(operator: OpOverload) -> list[Computed]:
    """Both results of each call that runs."""
    found = []
    for call in calls_of(operator):
        args, kwargs = tree_map(narrow, (call.args, call.kwargs))
        with contextlib.suppress(Exception):  # this call is for float64 only, or has no float64 form
            real = operator(*copied(args), **copied(kwargs))
            if any(isinstance(x, Tensor) and x.layout != torch.strided for x in tree_leaves(real)):
                continue  # it has no residues
            wide_args, wide_kwargs = widen((args, kwargs))
            with torch.no_grad(), Float64():
                float64 = operator(*wide_args, **wide_kwargs)
            found.append(Computed(*widen((args, kwargs)), real, float64))
    assert found, "no call runs in float32 and in float64"
    return found


def find_errors(real: Any, float64: Any) -> list[Tensor]:
    """Distances of floating-point results; those that are nan or infinite must be so on both sides."""
    errors = []
    for x, y in zip(tree_leaves(real), tree_leaves(float64), strict=True):
        if is_float(x):
            assert torch.equal(x.isfinite(), y.isfinite())
            errors.append(torch.where(y.isfinite(), x.double() - y, 0.0))
    return errors


BOUNDED = [o for o in OPERATORS if find_rounding(o) is not Rounding.PARTS and o not in UNINITIALIZED | VIEWS_OF_COMPLEX]


@pytest.mark.parametrize("operator", BOUNDED, ids=str)
def test_the_kernel_keeps_the_bound(operator: OpOverload) -> None:
    """Exact operators give the same bits; others stay within their bound."""
    for call in compute(operator):
        bounds = bound_errors(operator, call.float64, call.args, call.kwargs, call.dtype)
        bounds = [b for b, x in zip(bounds, tree_leaves(call.real), strict=True) if is_float(x)]
        for error, bound in zip(find_errors(call.real, call.float64), bounds, strict=True):
            limit = torch.zeros_like(error) if bound is None else SLACK * bound + torch.finfo(torch.float32).tiny
            within = (error.abs() <= limit) | (error == 0)  # whatever the bound is of what is not finite
            assert bool(within.all()), (error.abs() / limit)[~within]
        for x, y in zip(tree_leaves(call.real), tree_leaves(call.float64), strict=True):
            if isinstance(x, Tensor) and not is_float(x) and operator not in EMBEDDING_BAGS:
                assert torch.equal(x, y)


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("operator", [o for o in OPERATORS if find_rounding(o) is Rounding.PARTS], ids=str)
def test_the_kernel_keeps_the_floor(operator: OpOverload, third: int) -> None:
    """Moving each part moves the result at least as far as the kernel is off: on every third call of an operator."""
    for call in compute(operator)[third::3]:
        deviations = []
        for seed in range(RUNS):
            noise = Noise(torch.Generator().manual_seed(seed))
            noise.dtype = call.dtype
            with torch.no_grad(), noise:
                moved = operator(*copied(call.args), **copied(call.kwargs))
            deviations.append(find_errors(moved, call.float64))
            assert not noise.unknown
        assert Floor(deviations).score(find_errors(call.real, call.float64)).worst < WITHIN
