"""Choices by value of equal operands are equal for all inputs: the claim of a proof names no choice then."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export

import foldproof
from foldproof import Kind, Verdict

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.then = nn.Conv2d(3, 4, 3), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x).relu())


def program(then: Callable[[Tensor], Tensor]) -> ExportedProgram:
    return export(Net(then).eval(), (X,))


def pooled_with_places(y: Tensor) -> Tensor:
    values, places = F.max_pool2d(y, 2, return_indices=True)
    return values + places.float()


UNREAD: dict[str, Callable[[Tensor], Tensor]] = {
    "max_pool2d": lambda y: F.max_pool2d(y, 3, 2, 1),
    "amax": lambda y: y.amax((2, 3)),
    "max along a dimension": lambda y: y.max(1).values,
    "sort": lambda y: y.sort(-1).values[..., :2],
    "topk": lambda y: y.topk(2).values,
    "median": lambda y: y.median(-1).values,
    "adaptive": lambda y: F.adaptive_max_pool2d(y, 2),
    "cummax": lambda y: y.cummax(-1).values,
}

READ: dict[str, Callable[[Tensor], Tensor]] = {
    "places of a pool": pooled_with_places,
    "an index among the outputs": lambda y: y.max(1),  # type: ignore[dict-item, return-value]
    "a value by an index": lambda y: y.gather(1, y.argmax(1, keepdim=True)),
    "an index in arithmetic": lambda y: y.sum(1) + (y.argmax(1) + 1),
    "a view of indices": lambda y: y.sort(-1).indices[..., 0] * y[..., 0],
    "an index in an index": lambda y: y.flatten()[y.flatten().topk(3).indices],
}


def proved(one: ExportedProgram | nn.Module, other: ExportedProgram | nn.Module) -> Verdict:
    verdict = foldproof.prove(one, other, (X,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.proof is not None, verdict
    return verdict


@pytest.mark.parametrize("name", UNREAD)
def test_a_choice_of_equal_values_is_for_all_inputs(name: str) -> None:
    one = program(UNREAD[name])
    verdict = proved(one, one.run_decompositions())
    assert verdict.claim is not None and verdict.claim.is_general
    assert verdict.proof is not None and verdict.proof.branching == ()


@pytest.mark.parametrize("name", READ)
def test_an_index_that_is_read_limits_the_claim(name: str) -> None:
    one = program(READ[name])
    verdict = proved(one, one.run_decompositions())
    assert verdict.claim is not None and not verdict.claim.is_general


def graph(build: Callable[[fx.Graph, fx.Node], fx.Node], root: nn.Module | None = None) -> fx.GraphModule:
    made = fx.Graph()
    made.output(build(made, made.placeholder("x")))
    return fx.GraphModule(root or nn.Module(), made)


def listed(made: fx.Graph, x: fx.Node) -> fx.Node:
    largest = made.call_function(torch.max, (x, 1))
    values, indices = (made.call_function(getattr, (largest, name)) for name in ("values", "indices"))
    return made.call_function(torch.mul, (values, made.call_function(sum, (made.call_method("tolist", (indices,)),))))


def split_at_largest(made: fx.Graph, x: fx.Node) -> fx.Node:
    y = made.call_function(torch.mul, (x, 2))
    parts = made.call_function(torch.tensor_split, (y, made.call_function(torch.argmax, (y, 0)), 1))
    first = made.call_function(operator.getitem, (parts, 0))
    return made.call_function(torch.add, (y, made.call_method("sum", (first,))))


def size_of(choose: Callable[[Tensor], Tensor]) -> Callable[[fx.Graph, fx.Node], fx.Node]:
    def build(made: fx.Graph, x: fx.Node) -> fx.Node:
        chosen = made.call_function(choose, (x,))
        return made.call_function(torch.mul, (x, made.call_method("size", (chosen, 0))))

    return build


class Listing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        largest, places = x.max(1)
        return largest * sum(places.tolist())


def nested(made: fx.Graph, x: fx.Node) -> fx.Node:
    return made.call_function(operator.call, (made.get_attr("part"), x))


def root_of_nested() -> nn.Module:
    root = nn.Module()
    held = nn.Module()
    held.listing = Listing()
    root.part = graph(lambda made, x: made.call_module("listing", (x,)), held)
    return root


@torch.library.custom_op("foldproof_tests::largest_times_place", mutates_args=())
def largest_times_place(x: Tensor) -> Tensor:
    largest, places = x.max(1)
    return largest * sum(places.tolist())


@largest_times_place.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0])


CODE = torch.library.Library("foldproof_tests", "FRAGMENT")
CODE.define("split_at_largest(Tensor x) -> Tensor")


def _split_at_largest(x: Tensor) -> Tensor:
    y = x * 2
    return y + torch.tensor_split(y, y.argmax(0), 1)[0].sum()


CODE.impl("split_at_largest", _split_at_largest, "CompositeImplicitAutograd")


@pytest.mark.parametrize(
    "one",
    [
        graph(listed),
        graph(split_at_largest),
        graph(size_of(torch.nonzero)),
        graph(size_of(torch.unique)),
        graph(nested, root_of_nested()),
        graph(lambda made, x: made.call_function(torch.ops.foldproof_tests.largest_times_place.default, (x,))),
        graph(lambda made, x: made.call_function(torch.ops.foldproof_tests.largest_times_place, (x,))),
        graph(lambda made, x: made.call_function(torch.ops.foldproof_tests.split_at_largest.default, (x,))),
    ],
    ids=["tolist", "tensor_split", "nonzero", "unique", "module in a graph", "custom", "packet", "composite"],
)
def test_a_graph_that_reads_a_choice_without_an_operator(one: fx.GraphModule) -> None:
    x = torch.tensor([[5.0, 0.0], [1.0, 3.0], [2.0, 1.5], [-1.0, 0.5]])
    verdict = foldproof.prove(one, copy.deepcopy(one), (x,))
    assert verdict.claim is not None and not verdict.claim.is_general, verdict


def test_python_code_may_read_an_index_unseen() -> None:
    """Two modules: NumPy reads memory without an operator."""
    model = Net(UNREAD["max along a dimension"]).eval()
    verdict = proved(model, program(UNREAD["max along a dimension"]))
    assert verdict.proof is not None and verdict.proof.branching == ("max",)


@pytest.mark.parametrize(
    "other",
    [
        lambda y: F.max_pool2d(y + 1, 2) - 1.001,
        lambda y: -F.max_pool2d(-y, 2),
        lambda y: F.max_pool2d(y.flip(1), 2),
        lambda y: F.max_pool2d(y, 2, ceil_mode=True),
        lambda y: F.avg_pool2d(y, 2),
    ],
)
def test_other_choices_are_refuted(other: Callable[[Tensor], Tensor]) -> None:
    one, two = program(lambda y: F.max_pool2d(y[..., :5, :5], 2)), program(lambda y: other(y[..., :5, :5]))
    assert foldproof.prove(one, two, (X,)).kind is Kind.REFUTED


def test_equal_at_these_values_only() -> None:
    """The first of two is the larger one here; one program takes the first, and the other the larger."""
    x = torch.tensor([[3.0, 1.0], [2.0, -1.0]])

    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp().amax(1)

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp()[:, 0]

    verdict = foldproof.prove(export(Largest(), (x,)), export(First(), (x,)), (x,))
    assert verdict.kind is Kind.REFUTED, verdict


def shifted(y: Tensor, size: int, stride: int, padding: int, dilation: int = 1) -> list[Tensor]:
    """The elements of each window of a pooling, as shifted copies of the padded operand."""
    z = F.pad(y, [padding] * 4, value=float("-inf"))
    n = (z.shape[-1] - dilation * (size - 1) - 1) // stride + 1
    reach = stride * (n - 1) + 1
    steps = [dilation * i for i in range(size)]
    return [z[..., i : i + reach : stride, j : j + reach : stride] for i in steps for j in steps]


def chained(terms: list[Tensor]) -> Tensor:
    return functools.reduce(torch.maximum, terms)


SAME_MAXIMA: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "a pool and its windows": (
        lambda y: F.max_pool2d(y, 3, 2, 1),
        lambda y: torch.stack(shifted(y, 3, 2, 1), -1).amax(-1),
    ),
    "a dilated pool": (
        lambda y: F.max_pool2d(y, 2, 1, 0, 2),
        lambda y: torch.stack(shifted(y, 2, 1, 0, 2)[::-1], 0).amax(0),
    ),
    "a pool with a ceiling": (
        lambda y: F.max_pool2d(y, 3, 2, ceil_mode=True),
        lambda y: F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=float("-inf")), 3, 2),
    ),
    "windows of one element": (
        lambda y: F.max_pool2d(y, 2, 4, 1)[..., :1, :1],
        lambda y: y[..., :1, :1],
    ),
    "dimensions at once and in another order": (lambda y: y.amax((2, 3)), lambda y: y.flatten(2).flip(2).amax(2)),
    "a smallest element": (lambda y: y.amin(1), lambda y: -(-y).max(1).values),
    "a pair": (lambda y: y[:, :2].amax(1), lambda y: torch.maximum(y[:, 1], y[:, 0])),
    "a long dimension": (
        lambda y: y.repeat(1, 1, 40, 1).amax(2),
        lambda y: y.repeat(1, 1, 40, 1).flip(2).max(2).values,
    ),
    "an adaptive pool": (
        lambda y: F.adaptive_max_pool2d(y, 2),
        lambda y: F.max_pool2d(y, 3, 3),
    ),
}


@pytest.mark.parametrize("name", SAME_MAXIMA)
def test_maxima_of_the_same_values_are_equal_for_all_inputs(name: str) -> None:
    one, other = map(program, SAME_MAXIMA[name])
    verdict = proved(one, other)
    assert verdict.proof is not None and verdict.proof.branching == ()


OTHER_MAXIMA: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "an element is missing": (
        lambda y: F.max_pool2d(y, 3, 2, 1),
        lambda y: torch.stack(shifted(y, 3, 2, 1)[:-1], -1).amax(-1),
    ),
    "padding is a member": (lambda y: F.max_pool2d(-y, 3, 2, 1), lambda y: F.max_pool2d(F.pad(-y, [1] * 4), 3, 2)),
    "another dimension": (lambda y: y.amax(2), lambda y: y.amax(3)),
    "the smallest": (lambda y: y.amax(2), lambda y: y.amin(2)),
    "an element more": (lambda y: y[:, :3].amax(1), lambda y: y.amax(1)),
}


@pytest.mark.parametrize("name", OTHER_MAXIMA)
def test_maxima_of_other_values_are_refuted(name: str) -> None:
    one, other = map(program, OTHER_MAXIMA[name])
    assert foldproof.prove(one, other, (X,)).kind is Kind.REFUTED


def test_a_value_that_overflows_is_a_member() -> None:
    def overflowing(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], x[:, 1] * -1e20, x[:, 2]], -1).amax(-1)

    x = torch.tensor([[1.0, 3e20, 4.0]])
    found = foldproof.prove(overflowing, lambda x: torch.stack([x[:, 0], x[:, 2]], -1).amax(-1), (x,))
    assert found.kind is not Kind.PROVED


SCORES = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
CAUSAL = torch.full((4, 4), -torch.inf).triu(1)
WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))

SOFTMAXES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "softmax": (
        lambda x: torch.softmax(x, -1),
        lambda x: (e := (x - x.amax(-1, True)).exp()) / e.sum(-1, True),
    ),
    "logarithm of a softmax": (
        lambda x: torch.log_softmax(x, -1),
        lambda x: (y := x - x.amax(-1, True)) - y.exp().sum(-1, True).log(),
    ),
    "logsumexp": (
        lambda x: torch.logsumexp(x, -1),
        lambda x: (m := x.amax(-1, True))[:, 0] + (x - m).exp().sum(-1).log(),
    ),
}


@pytest.mark.parametrize(
    ("name", "mask"),
    [*((name, 0.0) for name in SOFTMAXES), ("softmax", CAUSAL), ("logsumexp", CAUSAL)],
    ids=[*SOFTMAXES, "softmax of masked scores", "logsumexp of masked scores"],
)
def test_the_largest_score_of_random_numbers_is_no_choice(name: str, mask: Tensor | float) -> None:
    """A proof must not follow it, since it depends on what dropout leaves."""
    composite, decomposed = SOFTMAXES[name]

    def of(softmax: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: softmax(F.dropout(x, 0.5) @ WEIGHT + mask)

    verdict = foldproof.prove(of(composite), of(decomposed), (SCORES,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.choices == (), verdict
    wrong = foldproof.prove(of(composite), of(lambda x: decomposed(x * (1 + 1e-3))), (SCORES,))
    assert wrong.kind is Kind.REFUTED, wrong


CHOOSING: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda y: y.max(-1, keepdim=True).indices,
    "argmax": lambda y: y.argmax(-1, keepdim=True),
    "topk": lambda y: y.topk(2).indices,
    "sort": lambda y: y.sort(-1).indices,
    "max_pool1d": lambda y: F.max_pool1d(y[None], 2, return_indices=True)[1][0],
}


@pytest.mark.parametrize("as_graph", [False, True], ids=["function", "graph"])
@pytest.mark.parametrize("name", CHOOSING)
def test_a_place_of_random_numbers_proves_nothing(name: str, as_graph: bool) -> None:
    """It is that of one draw, also where the values there are read as functions."""

    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            places = CHOOSING[name](F.dropout(x, 0.5) @ WEIGHT)
            return WEIGHT.gather(1, places) + x[:, : places.shape[1]]

    one = Chosen()
    other = export(one, (SCORES,)).module() if as_graph else one
    verdict = foldproof.prove(one if not as_graph else copy.deepcopy(other), other, (SCORES,))
    assert verdict.kind is Kind.UNDECIDED and "random" in verdict.reason, verdict
