"""The tensor subclass itself: how a shadow lives through modules, copies, views, casts, and where it ends."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from foldproof.shadow import RULES, Factories, SamplePoint, Shadow, Undecided, draw_variable, embed_constant
from foldproof.shadow.registry import Rule, RuleKind

aten = torch.ops.aten


def leaf(point: SamplePoint, value: Tensor, data: bool = False) -> Shadow:
    return Shadow(value, draw_variable(point, value, data))


def constant(point: SamplePoint, value: Tensor) -> Shadow:
    return Shadow(value, embed_constant(point, value))


@pytest.fixture
def point() -> SamplePoint:
    return SamplePoint(seed=7, k=2)


def same(a: Any, b: Any) -> bool:
    assert isinstance(a, Shadow) and isinstance(b, Shadow)
    fields = a.residue.point.fields
    return all(torch.equal(f.canonical(p), f.canonical(q)) for f, p, q in zip(fields, a.residue.parts, b.residue.parts))


def shadow_module(point: SamplePoint, module: nn.Module) -> nn.Module:
    for owner in module.modules():
        for name, p in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, nn.Parameter(leaf(point, p.detach().clone())))
    return module


# Wrappers and copies.


def test_parameter(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(3))
    p = nn.Parameter(x)
    assert isinstance(p, nn.Parameter) and isinstance(p, Shadow)
    assert p.requires_grad and same(p, x)
    assert same(p.detach(), x) and same(p.data, x)
    p.data.mul_(2)
    assert same(x, p)  # one memory


def test_setting_data(point: SamplePoint) -> None:
    p = nn.Parameter(leaf(point, torch.randn(3, 4)))
    new = leaf(point, torch.randn(2, 5).half())
    p.data = new
    assert (p.shape, p.dtype, p.stride()) == (new.shape, new.dtype, new.stride())
    assert isinstance(p, nn.Parameter) and same(p, new)
    assert same(p.sum(), new.sum())
    p.data = torch.ones(2)
    assert same(p, constant(point, torch.ones(2)))


def test_casts_are_identities(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(3))
    for cast in (
        x.double(),
        x.half(),
        x.to(torch.bfloat16),
        x.to("cpu"),
        x.to(torch.float64).to(torch.float32),
        x.cpu(),
    ):
        assert same(cast, x)
    assert x.double().dtype == torch.float64


def test_deepcopy(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(3))
    y = copy.deepcopy(x)
    assert same(x, y)
    y.zero_()
    assert not same(x, y)


def test_deepcopy_of_tied_parameters(point: SamplePoint) -> None:
    module = shadow_module(point, nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    module[1].weight = module[0].weight
    twin = copy.deepcopy(module)
    assert twin[0].weight is twin[1].weight
    assert isinstance(twin[0].weight, nn.Parameter)
    assert twin[0].weight is not module[0].weight and same(twin[0].weight, module[0].weight)


def test_deepcopy_keeps_views_together(point: SamplePoint) -> None:
    base = leaf(point, torch.randn(4))
    twin_base, twin_view = copy.deepcopy([base, base[1:3]])
    twin_view.fill_(float("-inf"))
    assert same(twin_base[1:3], twin_view)
    assert twin_base.residue.infinite and not base.residue.infinite


def test_state_dict_round_trip(point: SamplePoint) -> None:
    module = shadow_module(point, nn.Linear(3, 2))
    state = module.state_dict()
    assert all(isinstance(t, Shadow) for t in state.values())
    other = shadow_module(point, nn.Linear(3, 2))
    assert not same(other.weight, module.weight)
    other.load_state_dict(state)
    assert same(other.weight, module.weight) and same(other.bias, module.bias)
    other.load_state_dict(
        OrderedDict((k, leaf(point, torch.randn_like(v.value))) for k, v in state.items()), assign=True
    )
    assert isinstance(other.weight, nn.Parameter) and not same(other.weight, module.weight)


def test_functional_call(point: SamplePoint) -> None:
    module = nn.Linear(3, 2)
    leaves = {name: leaf(point, p.detach().clone()) for name, p in module.named_parameters()}
    x = leaf(point, torch.randn(4, 3), data=True)
    y = torch.func.functional_call(module, leaves, (x,))
    assert same(y, x @ leaves["weight"].t() + leaves["bias"])
    torch.testing.assert_close(y.value, module(x.value))


def test_fake_tensor(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(3, 4).t())
    fake = FakeTensorMode().from_tensor(x)
    assert isinstance(fake, FakeTensor)
    assert (fake.shape, fake.stride(), fake.dtype) == (x.shape, x.stride(), x.dtype)


def test_ties_are_visible_to_a_pass(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(3))
    assert x.data_ptr() == x.detach().data_ptr() == x.view(1, 3).data_ptr()
    assert x.untyped_storage().data_ptr() == x[:2].untyped_storage().data_ptr()


def test_repr(point: SamplePoint) -> None:
    assert "k=2" in repr(leaf(point, torch.zeros(1)))


# Layout.


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4).t(),
        torch.randn(6, 8)[::2, 1::3],
        torch.randn(1, 4).expand(3, 4),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.tensor([0.0, float("-inf")]).expand(3, 2),
        torch.empty(0, 3),
        torch.tensor(1.5),
    ],
    ids=["transposed", "strided", "expanded", "channels last", "expanded infinities", "empty", "scalar"],
)
@pytest.mark.parametrize("make", [leaf, constant])
def test_leaves_are_laid_out_like_their_values(point: SamplePoint, make: Any, value: Tensor) -> None:
    x = make(point, value)
    assert all(p.stride() == value.stride() for p in x.residue.parts)
    assert same(x.clone().contiguous(), x)
    assert same(x.reshape(-1), x.contiguous().view(-1))


def test_elements_that_share_memory_share_residues(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(1, 4).expand(3, 4))
    assert same(x[0], x[2])


def test_permuting_commutes_with_pointwise_and_row_wise_operators(point: SamplePoint) -> None:
    x, w = leaf(point, torch.randn(5, 3), data=True), leaf(point, torch.randn(2, 3))
    order = torch.tensor([3, 1, 4, 0, 2])
    assert same(F.linear(x, w).relu()[order], F.linear(x[order], w).relu())
    assert same(x.softmax(-1)[order], x[order].softmax(-1))
    assert same(F.layer_norm(x, [3])[order], F.layer_norm(x[order], [3]))
    assert not same(x.softmax(0)[:, :2], x[:, :2].softmax(-1))


# Reading values out of tensors.


def escapes(point: SamplePoint) -> str:
    (text,) = point.escapes
    point.escapes.clear()
    return text


def test_escapes_are_noted_with_their_place(point: SamplePoint) -> None:
    x = leaf(point, torch.ones(1))
    ways: dict[str, Any] = {
        "local_scalar_dense": [lambda: x.item(), lambda: float(x), lambda: 1 if x else 0, lambda: int(x)],
        "numpy": [lambda: x.numpy(), lambda: x.__array__()],
        "tolist": [lambda: x.tolist()],
        "equal": [lambda: torch.equal(x, x)],
        "allclose": [lambda: torch.allclose(x, x)],
    }
    for name, actions in ways.items():
        for action in actions:
            action()
            assert name in (text := escapes(point)), text
            assert f"{__file__}:" in text


def test_what_leaves_comes_back_as_a_constant(point: SamplePoint) -> None:
    x = leaf(point, torch.full((1,), 3.0))
    assert not same(x * x.item(), x * x)
    assert same(x * x.item(), x * 3)


# The end of what can be known.


def test_operators_without_a_rule_are_named(point: SamplePoint) -> None:
    x = leaf(point, torch.eye(4)[:, :2])
    with pytest.raises(Undecided, match=r"no rule for operator aten\.randn_like\.default, which is random"):
        torch.randn_like(x)
    with pytest.raises(Undecided, match="random"):
        F.dropout(x, 0.5, training=True)
    assert F.dropout(x, 0.5, training=False) is x


def test_custom_operators_written_in_python_are_run(point: SamplePoint) -> None:
    @torch.library.custom_op("foldproof_tests::doubled_rows", mutates_args=())
    def doubled_rows(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        rows = torch.zeros(x.shape)
        for i in range(x.shape[0]):
            torch.mul(x[i], 2, out=rows[i])
        return out + rows

    x = leaf(point, torch.randn(3, 4))
    assert same(torch.ops.foldproof_tests.doubled_rows(x), x + x)


def test_shadows_of_two_draws(point: SamplePoint) -> None:
    x, y = leaf(point, torch.ones(2)), leaf(SamplePoint(seed=8, k=2), torch.ones(2))
    with pytest.raises(Undecided, match="two different draws"):
        x + y


def test_a_rule_cannot_drop_residues(point: SamplePoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A floating-point result without residues would silently become a constant."""
    monkeypatch.setitem(RULES, aten.neg.default, Rule(RuleKind.EXACT, lambda call, x: None))
    with pytest.raises(Undecided, match="gives no residues"):
        -leaf(point, torch.ones(2))


def test_a_rule_cannot_give_another_shape(point: SamplePoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, aten.neg.default, Rule(RuleKind.EXACT, lambda call, x: x.residue.reshape(1, -1)))
    with pytest.raises(Undecided, match="shape"):
        -leaf(point, torch.ones(2))


def test_integers_do_not_wrap_unnoticed(point: SamplePoint) -> None:
    x = constant(point, torch.tensor([2**62]))
    with pytest.raises(Undecided, match="wraps around"):
        x + x
    assert same(x.view(1, 1).t().reshape(1), x)


def test_constants_without_residues(point: SamplePoint) -> None:
    with pytest.raises(Undecided):
        embed_constant(point, torch.eye(2).to_sparse())


def test_a_complex_nan_is_not_computed_with(point: SamplePoint) -> None:
    x = leaf(point, torch.ones(2)).to(torch.complex64)
    with pytest.raises(Undecided, match="a constant is nan"):
        x + torch.tensor([complex(0, float("nan"))])


def test_results_without_residues(point: SamplePoint) -> None:
    x = leaf(point, torch.eye(2))
    with pytest.raises(Undecided):
        x.to_sparse()


# Factories.


def test_factories(point: SamplePoint) -> None:
    with Factories(point):
        zero, blank, other = torch.zeros(3), torch.empty(3), torch.empty(3)
        assert torch.zeros(3, dtype=torch.int64).sum() == 0
        full, ones = torch.full((3,), 0.0), torch.full((3,), 1.0)
    assert same(zero, constant(point, torch.zeros(3))) and same(zero, full)
    assert same(ones, constant(point, torch.ones(3)))
    assert not same(blank, other)  # nothing may depend on uninitialised memory


def test_a_pass_can_copy_plain_tensors(point: SamplePoint) -> None:
    x, plain = leaf(point, torch.randn(3)), torch.randn(3)
    with Factories(point):
        assert torch.equal(copy.deepcopy(plain), plain)
        with pytest.raises(Undecided):
            x + plain.new_empty([])


def test_writes_into_new_tensors(point: SamplePoint) -> None:
    x = leaf(point, torch.randn(2))
    with Factories(point):
        out = torch.zeros(4)
        out[1:3] = x
    assert same(out[1:3], x)
    assert same(x.new_zeros(2), constant(point, torch.zeros(2)))
    assert not same(torch.empty_like(x), torch.empty_like(x))
