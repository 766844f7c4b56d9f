"""Every rule against the real operator, on the calls that PyTorch's operator database leads to (see `calls`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.shadow import RULES, SamplePoint, Semantics, Shadow, Undecided, draw_variable, embed_constant
from foldproof.shadow.registry import RuleKind
from foldproof.shadow.rules import activation
from tests.shadow.calls import Call, calls_of, carries_residues, copied, is_float
from tests.shadow.reals import RealPoint

aten = torch.ops.aten
OPERATORS = sorted(RULES.keys() - {aten.view.dtype, aten.view_as_real.default, aten.view_as_complex.default}, key=str)
"""All but the views of complex numbers; see `test_complex`."""

UNINITIALISED = {aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default}
"""Their values are whatever memory held."""

BY_DESIGN = (
    "constant is nan",
    "divisor is infinite",
    "divisor is zero",
    "infinities make a nan",
    "is nan",
    "integer arithmetic wraps",
    "has no residues",
    "which one stays",
    "not its operand's",
    "no rule for the reduction",
    "no element to choose",
    "no rule for this form",
    "all values are in one piece",
)
"""Refusals of a rule that are right; any other fails the test."""


FLOORS_OF_CHOICES = {aten.grid_sampler_2d.default, aten.grid_sampler_2d_backward.default}
"""Operators that take the floor of a coordinate limited to a whole number: over floats, its pieces add up to almost
that number."""

SINGLE = {aten.hardsigmoid_backward.default}
"""Operators whose kernels multiply by a float32 number in any dtype, here by a sixth."""


def shadowed(x: Any, point: SamplePoint) -> Any:
    """Shadows whose residues are the exact constants; so are booleans where comparisons may be functions."""

    def carries(t: Any) -> bool:
        boolean = isinstance(t, Tensor) and t.dtype is torch.bool and point.semantics.algebraic
        return carries_residues(t) or boolean

    return tree_map(lambda t: Shadow(t.clone(), embed_constant(point, t)) if carries(t) else copied(t), x)


def results_on_shadows(call: Call, shadow: Callable[[Any], Any]) -> list[Any] | None:
    """The results on shadows of the arguments, or None where a rule refuses for a good reason."""
    try:
        args, kwargs = shadow((call.args, call.kwargs))
        return tree_leaves(call.operator(*args, **kwargs))
    except Undecided as reason:
        assert any(text in str(reason) for text in BY_DESIGN), reason
        return None


def _largest(call: Call) -> float:
    floats = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor) and is_float(t) and t.numel()]
    return max((float(t.abs().nan_to_num(0, 0, 0).max()) for t in floats), default=0.0)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_over_the_reals(operator: OpOverload, record_property: Callable[[str, object], None]) -> None:
    """With the reals for a field, a rule computes what the operator does in float64."""
    calls = calls_of(operator)
    assert calls, "no sample of the operator database reaches this operator: add a call to `calls.of_our_own`"
    checked = 0
    # Activations may be read as choices between their pieces.
    algebraic = Semantics(algebraic=True, rational=True)
    semantics = [Semantics(), algebraic, replace(algebraic, pieces=True)]
    if RULES[operator].function.__module__ == activation.__name__:
        semantics.append(Semantics(by_value=True))
    for call, chosen in itertools.product(calls, semantics):
        if chosen.algebraic and (_largest(call) > 200 or operator in FLOORS_OF_CHOICES):
            continue  # exp(x) overflows where exp(x - m) does not
        point = RealPoint(chosen)
        results = results_on_shadows(call, partial(shadowed, point=point))
        for result in results or []:
            if isinstance(result, Shadow) and operator not in UNINITIALISED:
                (part,) = result.residue.parts
                scale = float(torch.where(result.value.isfinite(), result.value, 0.0).abs().sum()) + 1
                dtype = torch.float32 if operator in SINGLE else result.dtype
                eps = torch.finfo(dtype).eps if result.is_floating_point() else 0.0
                rtol = max(1e-9, 4 * eps)  # casts are identities
                value = result.value.double()
                if chosen.algebraic:  # where a function has no value, it may have any
                    part, value = (torch.where(value.isfinite(), t, 0.0) for t in (part, value))
                torch.testing.assert_close(part, value, rtol=rtol, atol=rtol * scale, equal_nan=True)
        checked += results is not None
    assert checked, "every call was refused"
    record_property("calls", checked)


@pytest.mark.parametrize(
    "operator", [o for o in OPERATORS if RULES[o].kind in (RuleKind.EXACT, RuleKind.BRANCH)], ids=str
)
def test_exact_rules_modulo_p(operator: OpOverload) -> None:
    """On whole numbers, the float64 value modulo p is the residue, element for element, for every prime."""
    checked = 0
    for call in calls_of(operator):
        point = SamplePoint(seed=checked, k=3)
        call = Call(call.operator, *whole((call.args, call.kwargs)), call.origin)
        if not call.runs():  # rounding made the arguments invalid
            continue
        results = results_on_shadows(call, partial(shadowed, point=point))
        for result in results or []:
            if isinstance(result, Shadow) and operator not in UNINITIALISED and not point.evaluations:
                assert_residues(point, result)
        checked += results is not None
    assert checked


def whole(x: Any) -> Any:
    """Floats rounded to whole numbers (tensors) or quarters (numbers), so that float64 arithmetic on them is exact."""

    def rounded(v: Any) -> Any:
        if is_float(v):
            return v.clamp(-9, 9).round()
        return round(v * 4) / 4 if isinstance(v, float) and abs(v) < 1e6 else v

    return tree_map(rounded, x)


def assert_residues(point: SamplePoint, result: Shadow) -> None:
    """The residues are those of the value, a fraction with a small denominator (quotients are rounded in float64)."""
    value = result.value.double()
    finite = value.isfinite()
    value, parts = value[finite], [p[finite] for p in result.residue.parts]
    denominator = torch.zeros_like(value)
    for d in range(1, 2048):
        fits = ((value * d).round() - value * d).abs() <= 1e-11 * (value * d).abs().clamp(min=1)
        denominator = torch.where(fits & (denominator == 0), d, denominator)
        if bool(denominator.all()):
            break
    assert bool(denominator.all()), f"no small fraction among {value[denominator == 0][:4].tolist()}"
    for field, part in zip(point.fields, parts):
        numerator = field.embed((value * denominator).round())
        wanted = field.reduce(numerator * field.inverse(denominator))
        # Equal as they stand: residues are kept below p/2, so that there is one representative of each.
        assert torch.equal(part, wanted), (field.p, value, denominator)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_results_look_like_the_operators(operator: OpOverload) -> None:
    """On random residues, float32: shapes, dtypes and strides of the real operator, and residues that are residues."""
    for i, call in enumerate(calls_of(operator, torch.float32)):
        point = SamplePoint(seed=i, k=2)
        memory: set[int] = set()

        def variable(t: Any) -> Any:
            if not carries_residues(t):
                return copied(t)
            shadow = Shadow(t.clone(), draw_variable(point, t, data=i % 2 == 0))
            memory.add(shadow.residue.parts[0].untyped_storage().data_ptr())
            return shadow

        expected = tree_leaves(call.run())
        for result, plain in zip(results_on_shadows(call, partial(tree_map, variable)) or [], expected):
            if not isinstance(plain, Tensor):
                assert result == plain
                continue
            assert (result.shape, result.dtype, result.stride()) == (plain.shape, plain.dtype, plain.stride())
            if not isinstance(result, Shadow):
                assert not plain.dtype.is_floating_point or not plain.numel()
                continue
            assert_well_formed(point, result)
            if result.numel() and not RULES[operator].view:
                assert result.residue.parts[0].untyped_storage().data_ptr() not in memory


def assert_well_formed(point: SamplePoint, x: Shadow) -> None:
    for field, part in zip(point.fields, x.residue.parts):
        assert part.dtype == torch.float64
        assert (part.shape, part.stride()) == (x.shape, x.stride())
        assert torch.equal(part, part.round())
        assert not part.numel() or float(part.abs().max()) <= field.p / 2 + 2
