"""Uninterpreted operators: equal operands and attributes give equal results, anything else gives another result."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.shadow import RULES, SamplePoint, Shadow, Undecided, draw_variable
from foldproof.shadow.registry import RuleKind
from tests.shadow.calls import Call, calls_of, copied, is_float

aten = torch.ops.aten
UNINTERPRETED = sorted((o for o, rule in RULES.items() if rule.kind is RuleKind.UNINTERPRETED), key=str)
LARGER = {torch.float32: torch.float64}


def leaves(call: Call, point: SamplePoint) -> tuple[Any, Any]:
    return tree_map(
        lambda t: Shadow(t.clone(), draw_variable(point, t, True)) if is_float(t) else copied(t),
        (call.args, call.kwargs),
    )


def evaluate(operator: OpOverload, args: Any, kwargs: Any) -> list[tuple[Tensor, ...]]:
    results = tree_leaves(operator(*args, **kwargs))
    return [tuple(f.canonical(p) for f, p in zip(r.residue.point.fields, r.residue.parts)) for r in results]


def equal(a: list[tuple[Tensor, ...]], b: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(p, q) for x, y in zip(a, b) for p, q in zip(x, y))


def some_calls(operator: OpOverload) -> list[Call]:
    calls = [c for c in calls_of(operator, torch.float32) if all(t.numel() for t in tree_leaves(c.args) if is_float(t))]
    assert calls
    return calls[:5]


@pytest.mark.parametrize("operator", UNINTERPRETED, ids=str)
def test_congruence(operator: OpOverload) -> None:
    for call in some_calls(operator):
        args, kwargs = leaves(call, SamplePoint(seed=3, k=2))
        assert equal(evaluate(operator, args, kwargs), evaluate(operator, args, kwargs))


@pytest.mark.parametrize("operator", UNINTERPRETED, ids=str)
def test_other_operands(operator: OpOverload) -> None:
    for call in some_calls(operator):
        point = SamplePoint(seed=3, k=2)
        args, kwargs = leaves(call, point)
        before = evaluate(operator, args, kwargs)
        for i, operand in enumerate(args):
            if isinstance(operand, Shadow):
                changed = [*args[:i], Shadow(operand.value, draw_variable(point, operand, True)), *args[i + 1 :]]
                assert not equal(before, evaluate(operator, changed, kwargs)), f"operand {i}"


@pytest.mark.parametrize("operator", UNINTERPRETED, ids=str)
def test_other_dtypes(operator: OpOverload) -> None:
    for call in some_calls(operator):
        args, kwargs = leaves(call, SamplePoint(seed=3, k=2))
        wide = tree_map(lambda t: Shadow(t.value.double(), t.residue) if isinstance(t, Shadow) else t, args)
        half = tree_map(lambda t: Shadow(t.value.bfloat16(), t.residue) if isinstance(t, Shadow) else t, args)
        single = evaluate(operator, args, kwargs)
        assert not equal(single, evaluate(operator, wide, kwargs))
        if operator not in (aten.nextafter.default,):  # bfloat16 is computed in float32, but not here
            try:
                assert equal(single, evaluate(operator, half, kwargs))
            except (NotImplementedError, RuntimeError) as error:
                assert "not implemented" in str(error) or "dtype" in str(error)


@pytest.mark.parametrize("operator", UNINTERPRETED, ids=str)
def test_other_attributes(operator: OpOverload) -> None:
    names = [
        a for a in operator._schema.arguments if str(a.type) in ("number", "float", "int", "str", "Optional[float]")
    ]
    call = some_calls(operator)[0]
    args, kwargs = leaves(call, SamplePoint(seed=3, k=2))
    before = evaluate(operator, args, kwargs)
    for argument in names:
        position = [a.name for a in operator._schema.arguments].index(argument.name)
        old = (
            args[position]
            if position < len(args) and not argument.kwarg_only
            else kwargs.get(argument.name, argument.default_value)
        )
        new = (
            "tanh" if isinstance(old, str) and old != "tanh" else "none" if isinstance(old, str) else (old or 0) + 0.25
        )
        if str(argument.type) == "int":
            new = int(old or 0) + 1
        if argument.kwarg_only:
            after = evaluate(operator, args, {**kwargs, argument.name: new})
        else:
            defaults = [a.default_value for a in operator._schema.arguments if not a.kwarg_only]
            given = [*args, *defaults[len(args) :]]
            given[position] = new
            after = evaluate(operator, given, kwargs)
        assert not equal(before, after), argument.name


def test_equal_numbers_are_equal_attributes() -> None:
    """1, 1.0 and True are the same number, 1 and 1.5 are not; nor are 0.1 and the float next to it."""
    x = torch.randn(4)
    shadow = Shadow(x, draw_variable(SamplePoint(seed=0, k=2), x, True))

    def elu(alpha: float) -> list[tuple[Tensor, ...]]:
        return evaluate(aten.elu.default, (shadow, alpha), {})

    assert equal(elu(1), elu(1.0))
    assert equal(elu(1), elu(True))
    assert not equal(elu(1), elu(1.5))
    assert not equal(elu(0.1), elu(0.1 + 2**-56))


def test_operators_differ() -> None:
    """No two pointwise functions of one element are taken for the same."""
    x = torch.rand(4) * 0.5 + 0.25
    shadow = Shadow(x, draw_variable(SamplePoint(seed=0, k=2), x, True))
    seen: dict[bytes, OpOverload] = {}
    for operator in set(UNINTERPRETED) - {aten.sgn.default}:  # the sign of a real number, by the rule of aten.sign
        if len([a for a in operator._schema.arguments if str(a.type) == "Tensor"]) == 1:
            try:
                result = evaluate(operator, (shadow,), {})
            except RuntimeError:  # it has attributes without defaults
                continue
            key = result[0][0].numpy().tobytes()
            assert key not in seen, f"{operator} and {seen.get(key)}"
            seen[key] = operator
    assert len(seen) > 30


def digest() -> str:
    """A fingerprint of every uninterpreted operator's residues on fixed operands."""
    out = hashlib.sha256()
    values = torch.linspace(0.1, 0.9, 6)
    shadow = Shadow(values, draw_variable(SamplePoint(seed=11, k=3), values, True))
    for operator in UNINTERPRETED:
        tensors = len([a for a in operator._schema.arguments if str(a.type) == "Tensor"])
        try:
            results = evaluate(operator, [shadow] * tensors, {})
        except RuntimeError:  # it has attributes without defaults
            continue
        except Undecided:
            continue
        for parts in results:
            for part in parts:
                out.update(part.contiguous().numpy().tobytes())
    return out.hexdigest()


def test_same_in_another_process() -> None:
    """Neither the process nor Python's hash seed enters an uninterpreted function."""
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    code = "from tests.shadow.test_opaque import digest; print(digest())"
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.split()[-1] == digest()
