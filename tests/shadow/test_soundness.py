"""Programs that differ must not get equal residues: the traps that a rule could fall into, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.shadow import SamplePoint, Semantics, Shadow, Undecided
from tests.shadow.test_shadow import constant, leaf, same

INF = math.inf


@pytest.fixture
def point() -> SamplePoint:
    return SamplePoint(seed=9, k=2)


@pytest.fixture
def x(point: SamplePoint) -> Shadow:
    return leaf(point, torch.randn(4, 6), data=True)


# Infinities.


def test_an_infinity_is_no_number(point: SamplePoint) -> None:
    infinite = constant(point, torch.tensor([INF, -INF]))
    assert not same(infinite, infinite.flip(0))
    for number in range(-20, 21):
        assert not same(infinite, constant(point, torch.tensor([float(number)] * 2)))
    assert not same(infinite.sigmoid(), constant(point, torch.tensor([7.0, 11.0])).sigmoid())


def test_masked_softmax(point: SamplePoint, x: Shadow) -> None:
    mask = torch.zeros(4, 6)
    mask[:, 4:] = -INF
    masked = (x + mask).softmax(-1)
    assert same(masked[:, :4], x[:, :4].softmax(-1))
    assert same(masked[:, 4:], constant(point, torch.zeros(4, 2)))
    assert same(x.masked_fill(mask < 0, -INF).softmax(-1), masked)
    assert same((x + mask).exp()[:, 4:], constant(point, torch.zeros(4, 2)))
    with pytest.raises(Undecided, match="infinities make a nan"):
        (x + torch.full((4, 6), -INF)).softmax(-1)


def test_attention_with_a_mask_is_its_parts(point: SamplePoint) -> None:
    q, k, v = (leaf(point, torch.randn(1, 2, 5, 4), data=True) for _ in range(3))
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -INF)
    parts = (q @ k.transpose(-2, -1) * 0.25 + mask).softmax(-1) @ v
    assert same(F.scaled_dot_product_attention(q, k, v, mask, scale=0.25), parts)
    assert same(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.25), parts)
    assert not same(F.scaled_dot_product_attention(q, k, v, scale=0.25), parts)
    assert not same(F.scaled_dot_product_attention(q, k, v, mask, scale=0.5), parts)


def test_infinities_that_make_a_nan(point: SamplePoint, x: Shadow) -> None:
    infinite = constant(point, torch.full((4, 6), INF))
    for make in (lambda: infinite - infinite, lambda: infinite * 0.0, lambda: (x + INF) - INF):
        with pytest.raises(Undecided, match="infinities make a nan"):
            make()


def test_a_quotient_of_infinities_does_not_cancel(point: SamplePoint, x: Shadow) -> None:
    weight, infinite = leaf(point, torch.rand(6) + 1), constant(point, torch.full((6,), INF))
    with pytest.raises(Undecided, match="divisor is infinite"):
        (weight / infinite) / (1 / infinite)
    assert not same((x / (x.abs() + infinite)) / (1 / (x.abs() + infinite)), x)


@pytest.mark.parametrize("shift_first", [True, False])
def test_what_softmax_takes_out(shift_first: bool) -> None:
    """Either the largest element, as one would write it; or the first, whatever rounding does to the values."""
    point = SamplePoint(9, 2, Semantics(shift_first=shift_first))
    one = leaf(point, torch.tensor([[-INF, 1.0, 1.0000001, 0.5]]), data=True)
    other = Shadow(torch.tensor([[-INF, 1.0000001, 1.0, 0.5]]), one.residue)
    by_hand = (one - one.amax(-1, True)).exp()
    assert same(one.softmax(-1), by_hand / by_hand.sum(-1, True)) is not shift_first
    assert same(one.softmax(-1), other.softmax(-1)) is shift_first
    assert same(one.log_softmax(-1)[:, 1:], other.log_softmax(-1)[:, 1:]) is shift_first
    assert point.shifted


# Division.


def test_division_by_zero(point: SamplePoint) -> None:
    w = leaf(point, torch.ones(3))
    for make in (
        lambda: w / 0,
        lambda: w / (w - w),
        lambda: w / torch.tensor([1.0, 0.0, 2.0]),
        lambda: (w - w).reciprocal(),
    ):
        with pytest.raises(Undecided, match="divisor is zero"):
            make()


def test_one_prime_does_not_tell_that_a_divisor_is_zero() -> None:
    """Modulo one prime, one of a million elements is 0 by chance; a run with one prime only tells sizes."""
    weight = torch.ones(1000, 1000)
    assert foldproof.prove(Divides(weight), MultipliesByInverse(weight), (torch.ones(1000, 1000),)).kind is Kind.PROVED


class Divides(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x / self.weight


class MultipliesByInverse(Divides):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 / self.weight)


def test_statistics_of_too_few(point: SamplePoint) -> None:
    with pytest.raises(Undecided):
        leaf(point, torch.ones(1, 3)).var(0)
    with pytest.raises(Undecided):
        leaf(point, torch.ones(0, 3)).mean(0)


# Arguments that change what is computed.

DIFFERENT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "alpha": (lambda t: torch.add(t, t, alpha=2), lambda t: t + t),
    "beta": (lambda t: torch.addmm(t, t, torch.eye(6), beta=2), lambda t: torch.addmm(t, t, torch.eye(6))),
    "addmm alpha": (lambda t: torch.addmm(t, t, torch.eye(6), alpha=2), lambda t: torch.addmm(t, t, torch.eye(6))),
    "addcmul value": (lambda t: torch.addcmul(t, t, t, value=2), lambda t: torch.addcmul(t, t, t)),
    "correction": (lambda t: t.var(1, correction=0), lambda t: t.var(1, correction=1)),
    "ceil_mode": (
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 3, 2, ceil_mode=True)[:, :1, :2],
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 3, 2, count_include_pad=False, padding=1)[:, :1, :2],
    ),
    "divisor_override": (
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 2, divisor_override=3),
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 2),
    ),
    "count_include_pad": (
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 2, padding=1, count_include_pad=False),
        lambda t: F.avg_pool2d(t.view(1, 4, 6), 2, padding=1),
    ),
    "approximate": (lambda t: F.gelu(t), lambda t: F.gelu(t, approximate="tanh")),
    "negative_slope": (lambda t: F.leaky_relu(t, 0.01), lambda t: F.leaky_relu(t, 0.010000001)),
    "beta of softplus": (lambda t: F.softplus(t, 1.0), lambda t: F.softplus(t, 2.0)),
    "clamp to infinity": (lambda t: t.clamp(min=-INF), lambda t: t.clamp(min=INF)),
    "clamp to minus infinity": (lambda t: t.clamp(max=INF), lambda t: t.clamp(max=-INF)),
    "limits swapped": (lambda t: t.clamp(-1, 1), lambda t: t.clamp(1, -1)),
    "rounding_mode": (
        lambda t: torch.div(t, 0.3, rounding_mode="floor"),
        lambda t: torch.div(t, 0.3, rounding_mode="trunc"),
    ),
    "dim": (lambda t: t[:, :4].cumsum(0), lambda t: t[:, :4].cumsum(1)),
    "order": (lambda t: t.norm(1, 1), lambda t: t.norm(3, 1)),
    "eps": (lambda t: F.layer_norm(t, [6], eps=1e-5), lambda t: F.layer_norm(t, [6], eps=1e-6)),
    "reverse order": (lambda t: t.sort(1).values, lambda t: t.sort(1, descending=True).values),
    "include_self": (
        lambda t: t.scatter_reduce(1, torch.tensor([[0, 1]]), t[:, 2:4], "sum"),
        lambda t: t.scatter_reduce(1, torch.tensor([[0, 1]]), t[:, 2:4], "sum", include_self=False),
    ),
    "dilation": (
        lambda t: F.conv1d(t.unsqueeze(0), torch.ones(2, 4, 2), dilation=2, padding=1)[..., :5],
        lambda t: F.conv1d(t.unsqueeze(0), torch.ones(2, 4, 2), padding=1)[..., :5],
    ),
    "groups": (
        lambda t: F.conv1d(t.unsqueeze(0), torch.ones(4, 2, 2), groups=2),
        lambda t: F.conv1d(t.unsqueeze(0), torch.ones(4, 4, 2)),
    ),
    "a constant": (lambda t: t * 0.1, lambda t: t * (0.1 + 2**-27)),
    "a subnormal": (lambda t: t + 2e-45, lambda t: t),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_arguments_matter(name: str, x: Shadow) -> None:
    one, other = DIFFERENT[name]
    a, b = one(x), other(x)
    assert a.shape == b.shape
    assert same(a, one(x))
    assert not same(a, b)


SAME: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "negative dimension": (lambda t: t.sum(-1), lambda t: t.sum(1)),
    "keepdim": (lambda t: t.amax(-1, keepdim=True).squeeze(1), lambda t: t.amax(1)),
    "all dimensions": (lambda t: t.sum([]), lambda t: t.sum([0, 1])),
    "half of twice": (lambda t: (t + t) / 2, lambda t: t),
    "a third": (lambda t: (t / 3) * 3, lambda t: t),
    "square": (lambda t: t**2, lambda t: t * t),
    "sqrt": (lambda t: t.abs() ** 0.5, lambda t: t.abs().sqrt()),
    "rsqrt": (lambda t: 1 / t.abs().sqrt(), lambda t: t.abs().rsqrt()),
    "relu and clamp": (lambda t: t.relu(), lambda t: t.clamp(min=0)),
    "max of a pair": (lambda t: torch.maximum(t, t.flip(0)), lambda t: torch.maximum(t.flip(0), t)),
    "minimum": (lambda t: torch.minimum(t, t.flip(0)), lambda t: -torch.maximum(-t, -t.flip(0))),
    "hardtanh": (lambda t: F.relu6(t), lambda t: F.hardtanh(t, 0.0, 6.0)),
    "hardswish": (lambda t: F.hardswish(t), lambda t: t * F.relu6(t + 3) / 6),
    "silu": (lambda t: F.silu(t), lambda t: t * t.sigmoid()),
    "einsum": (lambda t: torch.einsum("ij,kj->ik", t, t), lambda t: t @ t.t()),
    "log_softmax": (lambda t: t.logsumexp(1, keepdim=True), lambda t: (t - t.log_softmax(1))[:, :1]),
    "batch of rows": (lambda t: (t.unsqueeze(0) @ t.t()).squeeze(0), lambda t: t @ t.t()),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_functions_agree(name: str, x: Shadow) -> None:
    one, other = SAME[name]
    assert same(one(x), other(x))


# Choices that are left open, or made by values.


def test_elements_written_twice(x: Shadow) -> None:
    twice = torch.tensor([1, 1])
    for write in (
        lambda: x.index_put((twice,), x[:2]),
        lambda: x.index_copy(0, twice, x[:2]),
        lambda: x.scatter(0, twice.view(2, 1), x[:2, :1]),
    ):
        with pytest.raises(Undecided, match="written twice"):
            write()
    assert same(x.index_put((twice,), torch.tensor(2.0))[1], x[1] * 0 + 2)
    assert same(x.index_put((twice,), x[2:], accumulate=True)[1], x[1] + x[2] + x[3])


def test_an_embedding_that_renormalises_its_table(point: SamplePoint) -> None:
    value, at = torch.randn(5, 3) * 3, torch.tensor([1])
    table, twin = leaf(point, value), leaf(point, value)
    before = twin.clone()
    found = F.embedding(at, table, max_norm=1.0)
    assert not same(found, before[at]) and not same(table, before), (
        "rows are written, and their norms are uninterpreted"
    )
    assert same(F.embedding(at, before, max_norm=1.0), F.embedding(at, twin, max_norm=1.0))


def test_memory_beyond_a_tensors_own(point: SamplePoint) -> None:
    base = leaf(point, torch.randn(10))
    assert same(base.as_strided((3, 2), (2, 1), 1)[1], base[3:5])
    for outside in (lambda: base[2:5].as_strided((2,), (1,), 0), lambda: base[::2].as_strided((4,), (1,))):
        with pytest.raises(Undecided, match="not its operand's"):
            outside()


def test_nearest_neighbours_are_those_of_the_dtype(point: SamplePoint) -> None:
    """In float32 PyTorch picks other neighbours than in float64 for some sizes, 259 to 222 among them."""
    image = leaf(point, torch.randn(1, 1, 259, 1))
    single = F.interpolate(image, (222, 1), mode="nearest")
    double = F.interpolate(image.double(), (222, 1), mode="nearest")
    positions = F.interpolate(torch.arange(259.0).view(1, 1, -1, 1), (222, 1), mode="nearest").long().view(-1)
    assert same(single.view(-1), image.view(-1)[positions])
    assert not same(single, double)


def in_range(t: Tensor) -> Tensor:
    """A mask that carries residues."""
    mask: Tensor = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(t, 1.0, 0, -128, 127)[1]
    return mask


@pytest.mark.parametrize(
    ("choose", "operator"),
    [
        (lambda t: t.amax(1), "amax"),
        (lambda t: t.topk(2).values, "topk"),
        (lambda t: torch.where(t > 0, t, -t), "gt"),
        (lambda t: t.argmax(1), "argmax"),
        (lambda t: F.max_pool1d(t, 2), "max_pool2d_with_indices"),
        (lambda t: t.int(), "_to_copy"),
        (lambda t: t.sum(dtype=torch.int64), "sum"),
        (lambda t: t[t.argmax()] if t.ndim < 2 else t.max(0).values, "max"),
        (lambda t: t.norm(INF, 1), "amax"),
        (lambda t: F.softplus(t), "softplus"),
        (lambda t: torch.where(in_range(t), t, -t), "where"),
        (lambda t: t.masked_fill(in_range(t), 0.0), "masked_fill"),
        (lambda t: t.masked_scatter(in_range(t), -t), "masked_scatter"),
    ],
)
def test_choices_by_value_are_noted(
    point: SamplePoint, x: Shadow, choose: Callable[[Tensor], Tensor], operator: str
) -> None:
    choose(x)
    assert operator in point.branch


@pytest.mark.parametrize(
    "all_inputs",
    [lambda t: t.relu(), lambda t: t.clamp(-1, 1), lambda t: t.softmax(1), lambda t: t.abs(), lambda t: t @ t.t()],
)
def test_no_choice_where_none_is_made(point: SamplePoint, x: Shadow, all_inputs: Callable[[Tensor], Tensor]) -> None:
    all_inputs(x)
    assert not point.branch


# Sums that are too long to be exact in one go.


def test_long_sums(point: SamplePoint) -> None:
    n = 40_000
    a, b = torch.randint(-9, 9, (2, n)).float(), torch.randint(-9, 9, (n, 2)).float()
    x, w = constant(point, a), constant(point, b)
    assert same(x @ w, constant(point, a.double() @ b.double()))
    long = leaf(point, torch.randn(1, n), data=True)
    other = leaf(point, torch.randn(n, 1))
    for field, p, q, r in zip(point.fields, long.residue.parts, other.residue.parts, (long @ other).residue.parts):
        exact = sum(int(i) * int(j) for i, j in zip(p.view(-1).tolist(), q.view(-1).tolist()))
        assert int(field.canonical(r)) == exact % field.p


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (2, False), (1, True), (2, True)])
def test_long_convolutions(point: SamplePoint, groups: int, transposed: bool) -> None:
    channels, out = 2 * 1_000, 2
    shape = (channels, out // groups, 5, 5) if transposed else (out, channels // groups, 5, 5)
    image, weight = leaf(point, torch.randn(1, channels, 6, 6), data=True), leaf(point, torch.randn(shape))
    convolve = F.conv_transpose2d if transposed else F.conv2d
    result = convolve(image, weight, groups=groups)
    whole = image[..., :5, :5] if not transposed else image
    per_group = channels // groups
    for field, p, q, r in zip(point.fields, whole.residue.parts, weight.residue.parts, result.residue.parts):
        if transposed:  # the first output sees the first pixel and the first tap only
            terms = zip(p[0, :per_group, 0, 0].tolist(), q[:per_group, 0, 0, 0].tolist())
        else:
            terms = zip(p[0, :per_group].reshape(-1).tolist(), q[0].reshape(-1).tolist())
        exact = sum(int(i) * int(j) for i, j in terms)
        assert int(field.canonical(r[0, 0, 0, 0])) == exact % field.p


def test_a_kernel_that_is_too_large(point: SamplePoint) -> None:
    image = leaf(point, torch.randn(1, 1, 20_000), data=True)
    with pytest.raises(Undecided, match="taps"):
        F.conv1d(image, torch.randn(1, 1, 17_000))
