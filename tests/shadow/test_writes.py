"""In-place and ``out=`` operators: each is its functional form followed by a write."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map

from foldproof.operators import find_functional_form, list_written, writes_out
from foldproof.shadow import RULES, SamplePoint, Shadow, Undecided, draw_variable, embed_constant
from tests.shadow.calls import Call, calls_of, copied, is_float

aten = torch.ops.aten


def _mutable() -> dict[OpOverload, OpOverload]:
    """Operators that write to one argument, with their functional forms."""
    out = {}
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        if namespace != "aten":
            continue
        packet, _, overload = rest.partition(".")
        try:
            operator = getattr(getattr(aten, packet), overload or "default")
        except AttributeError:
            continue
        if len(list_written(operator)) == 1 and torch.Tag.inplace_view not in operator.tags:
            form = find_functional_form(operator)
            if form and not form.options and form.operator in RULES and not RULES[form.operator].rewrites:
                out[operator] = form.operator
    return dict(sorted(out.items(), key=lambda item: str(item[0])))


MUTABLE = _mutable()
IN_PLACE = {o: f for o, f in MUTABLE.items() if not writes_out(o)}
OUT = {o: f for o, f in MUTABLE.items() if writes_out(o)}


def _shadows(call: Call, point: SamplePoint) -> tuple[list[object], dict[str, object]]:
    args, kwargs = tree_map(
        lambda t: Shadow(t.clone(), draw_variable(point, t, True)) if is_float(t) else copied(t),
        (call.args, call.kwargs),
    )
    return list(args), kwargs


def _same(a: object, b: object) -> bool:
    assert isinstance(a, Shadow) and isinstance(b, Shadow)
    parts = zip(a.residue.parts, b.residue.parts)
    return torch.equal(a.value, b.value) and all(torch.equal(p, q) for p, q in parts)


def test_there_are_many() -> None:
    assert len(IN_PLACE) > 100
    assert len(OUT) > 150


@pytest.mark.parametrize("operator", IN_PLACE, ids=str)
def test_in_place(operator: OpOverload) -> None:
    """The real in-place operator gives the functional form's value, and on shadows its residues too."""
    checked = 0
    for call in calls_of(IN_PLACE[operator]):
        plain = copied(call.args)
        if not isinstance(plain[0], Tensor):
            continue
        try:
            expected = operator(*plain, **copied(call.kwargs))
        except (RuntimeError, TypeError):  # the result does not fit in place
            continue
        args, kwargs = _shadows(call, SamplePoint(seed=1, k=2))
        try:
            functional = IN_PLACE[operator](*args, **kwargs)
            result = operator(*args, **kwargs)
        except Undecided:
            continue
        if not isinstance(functional, Shadow) or not isinstance(args[0], Shadow):
            continue
        assert result is args[0] and expected is plain[0]
        torch.testing.assert_close(result.value, expected, rtol=0, atol=0, equal_nan=True)
        if not bool(functional.value.isnan().any()):
            assert all(torch.equal(p, q) for p, q in zip(result.residue.parts, functional.residue.parts))
        checked += 1
    results = [c.run() for c in calls_of(IN_PLACE[operator])]
    assert checked or not any(isinstance(r, Tensor) and r.is_floating_point() for r in results)


@pytest.mark.parametrize("operator", OUT, ids=str)
def test_out(operator: OpOverload) -> None:
    (name,) = (a.name for a in operator._schema.arguments if a.is_out)
    for call in calls_of(OUT[operator])[:5]:
        args, kwargs = _shadows(call, SamplePoint(seed=1, k=2))
        try:
            functional = OUT[operator](*args, **kwargs)
        except Undecided:
            continue
        if not isinstance(functional, Shadow) or bool(functional.value.isnan().any()):
            continue
        point = functional.residue.point
        blank = torch.zeros_like(functional.value)
        out = Shadow(blank, embed_constant(point, blank))
        assert operator(*args, **kwargs, **{name: out}) is out
        assert _same(out, functional)


def _leaf(*shape: int) -> Shadow:
    value = torch.randn(shape)
    return Shadow(value, draw_variable(SamplePoint(seed=0, k=2), value, True))


def test_out_of_another_shape_is_refused() -> None:
    x = _leaf(3)
    out = Shadow(torch.zeros(2, 3), embed_constant(x.residue.point, torch.zeros(2, 3)))
    with pytest.raises(Undecided, match="writes shape"):
        aten.exp.out(x, out=out)


def test_writes_through_views_reach_the_base() -> None:
    x, y = _leaf(4, 3), None
    y = Shadow(torch.ones(3), draw_variable(x.residue.point, torch.ones(3), False))
    x[1].copy_(y)
    x.t()[:, 2].mul_(2)
    assert torch.equal(x.value[1], y.value)
    assert _same(x[1], y)
    again = x[2]
    x.view(12)[6:9] = y
    assert _same(again, y)


def test_a_view_made_before_the_write_sees_it() -> None:
    x = _leaf(4, 3)
    column = x[:, 1]
    x.zero_()
    assert float(column.value.abs().sum()) == 0
    assert all(float(p.abs().sum()) == 0 for p in column.residue.parts)


def test_an_infinity_written_through_a_view_is_known_to_the_base() -> None:
    x = _leaf(3, 4)
    x[:, 2:].fill_(float("-inf"))
    assert x.residue.infinite
    probabilities = x.softmax(-1)
    assert all(float(p[:, 2:].abs().sum()) == 0 for p in probabilities.residue.parts)


def test_reshaping_in_place() -> None:
    x = _leaf(1, 3, 4)
    alias = x[0]
    result = x.squeeze_(0).t_()
    assert result is x and x.shape == (4, 3)
    assert _same(x.t(), alias)
    x.zero_()
    assert all(float(p.abs().sum()) == 0 for p in alias.residue.parts)


def test_results_do_not_share_memory_with_operands() -> None:
    x = _leaf(3)
    before = [p.clone() for p in x.residue.parts]
    for made in (x.clamp(min=float("-inf")), x**1, x.float().clone(), torch.cat([x]), x[0].amax(), x.sum([]), x + 0):
        made.zero_()
    assert all(torch.equal(p, q) for p, q in zip(x.residue.parts, before))


def test_a_shadow_does_not_fit_into_an_ordinary_tensor() -> None:
    with pytest.raises(Undecided, match=r"add_.Tensor writes a shadow into an ordinary tensor"):
        torch.zeros(3).add_(_leaf(3))


def test_comparisons_do_fit_into_an_ordinary_tensor() -> None:
    mask = torch.zeros(3, dtype=torch.bool)
    x = _leaf(3)
    torch.gt(x, 0, out=mask)
    assert torch.equal(mask, x.value > 0)


@pytest.mark.parametrize("operator", ["resize_", "uniform_", "normal_", "bernoulli_"])
def test_writes_without_a_rule_are_named(operator: str) -> None:
    x = _leaf(3)
    with pytest.raises(Undecided, match=operator):
        x.resize_(2) if operator == "resize_" else getattr(x, operator)()


def test_batch_norm_writes_its_statistics() -> None:
    point = SamplePoint(seed=0, k=2)
    x, mean, var = torch.randn(4, 3), torch.zeros(3), torch.ones(3)
    shadow = Shadow(x, draw_variable(point, x, True))
    statistics = [Shadow(t.clone(), draw_variable(point, t, False)) for t in (mean, var)]
    before = [s.residue.parts[0].clone() for s in statistics]
    torch.nn.functional.batch_norm(shadow, *statistics, training=True)
    torch.nn.functional.batch_norm(x, mean, var, training=True)
    for s, plain, old in zip(statistics, (mean, var), before):
        torch.testing.assert_close(s.value, plain)
        assert not bool((s.residue.parts[0] == old).any())
    with pytest.raises(Undecided, match="ordinary tensor"):
        torch.nn.functional.batch_norm(shadow, mean, var, training=True)
