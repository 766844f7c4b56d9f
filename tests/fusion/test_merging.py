"""Linear operators that become one: how many are left, and what each step keeps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, largest_error, run
from torch import nn
from torch.export import Dim

import foldproof
from foldproof import Kind
from foldproof.fusion import examples
from foldproof.fusion.examples import Fires, functional

ALL = (*examples.parallel_fires, *examples.consecutive_fires)
LINEAR = ("conv1d", "conv2d", "convolution", "linear", "addmm", "mm")


def count_linear(operators: Any) -> int:
    return sum(count for name, count in operators.items() if name.split(".")[1] in LINEAR)


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
@pytest.mark.parametrize("example", [pytest.param(e, id=e.name) for e in ALL])
def test_one_is_left(example: Fires, form: str) -> None:
    model, inputs = example.make()
    program = FORMS[form](torch.export.export(model, inputs))
    result = foldproof.fuse(program, inputs, prove=False)
    decomposed_stack = form == "core ATen" and "stack" in example.name  # a concatenation, viewed and summed
    assert count_linear(result.operators_after) == (2 if decomposed_stack else 1)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6  # type: ignore[arg-type]


def test_of_a_dynamic_size() -> None:
    model, inputs = examples.parallel_fires[0].make()
    shapes = {"inputs": ({0: Dim("b", min=2), 2: Dim("h", min=3), 3: Dim("w", min=3)},)}
    result = foldproof.fuse(model, inputs, dynamic_shapes=shapes)
    assert count_linear(result.operators_after) == 1 and result.verdict.kind is Kind.PROVED
    other = (torch.randn(3, 6, 4, 11),)
    assert largest_error([model(*other)], run(result.program, other)) < 2e-6  # type: ignore[arg-type]


def test_weights_that_others_read_stay() -> None:
    """A merge that would have to copy a large weight for a small saving is declined, with the number of bytes."""

    def function(m: Any, x: torch.Tensor) -> Any:
        return m.a(x) + m.b(x), nn.functional.linear(x.relu(), m.a.weight), nn.functional.linear(x.relu(), m.b.weight)

    model, inputs = functional(
        ((1, 64),), function, a=partial(nn.Linear, 64, 64, bias=False), b=partial(nn.Linear, 64, 64, bias=False)
    )()
    result = foldproof.fuse(model, inputs)
    assert result.rewrites == ()
    [declined] = result.declined
    assert "linear, linear_1, add are not merged" in declined.reason and "more bytes of weights" in declined.reason


def test_half_precision_is_rounded_once() -> None:
    model, inputs = examples.parallel_fires[0].make()
    model, inputs = model.half(), tuple(x.half() for x in inputs)
    result = foldproof.fuse(model, inputs)
    assert count_linear(result.operators_after) == 1 and result.verdict.kind is Kind.PROVED


def test_reshaping_and_back_goes_with_what_was_between() -> None:
    [example] = [e for e in examples.identity_fires if "back" in e.name]
    result = foldproof.fuse(*example.make())
    assert dict(result.operators_after) == {"aten.linear.default": 1, "aten.conv1d.default": 1, "aten.relu.default": 1}
    assert result.verdict.kind is Kind.PROVED


class Adapted(nn.Module):
    """A linear with a low-rank adapter, as peft computes it."""

    def __init__(self, base: nn.Module, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.base(x)
        adapted = self.up(self.down(self.dropout(x.to(self.down.weight.dtype)))) * 0.5
        return (result + adapted).to(result.dtype)


@pytest.mark.parametrize("form", ["training IR", "core ATen"])
def test_adapters_are_merged_into_a_network(form: str) -> None:
    torch.manual_seed(0)
    twice = Adapted(Adapted(nn.Linear(8, 5), 8, 5, 2), 8, 5, 3)
    model = nn.Sequential(Adapted(nn.Linear(6, 8), 6, 8, 2), nn.GELU(), twice).eval()
    inputs = (torch.randn(2, 3, 6),)
    program = FORMS[form](torch.export.export(model, inputs))
    result = foldproof.fuse(program, inputs)
    assert count_linear(result.operators_after) == 2 and result.declined == ()
    assert result.verdict.kind is Kind.PROVED
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6  # type: ignore[arg-type]


def test_an_adapter_of_another_dtype_stays() -> None:
    model = Adapted(nn.Linear(6, 8), 6, 8, 2).eval()
    model.base.bfloat16()
    result = foldproof.fuse(model, (torch.randn(4, 6, dtype=torch.bfloat16),))
    assert count_linear(result.operators_after) == 3
    reasons = [one.reason for one in result.declined]
    assert any("from bfloat16 to float32, and one operator would compute both in one of these" in r for r in reasons)


@pytest.mark.parametrize(
    ("inner", "outer", "why"),
    [
        (partial(nn.Linear, 8, 2), partial(nn.Linear, 2, 8), "64 multiplications for each place instead of 32"),
        (partial(nn.Conv2d, 8, 8, 3, groups=8), partial(nn.Conv2d, 8, 6, 1), "432 multiplications"),
    ],
    ids=["low rank", "depthwise"],
)
def test_a_row_that_pays_apart_is_told(inner: Any, outer: Any, why: str) -> None:
    model = nn.Sequential(inner(), outer()).eval()
    x = torch.randn(2, 8, 8, 8)
    [declined] = foldproof.explain(model, (x,))
    assert "are not merged into one operator: one operator would take" in declined.reason and why in declined.reason


class Table(nn.Module):
    """A table with a low-rank adapter, before a linear that makes fewer features of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.down, self.up = nn.Parameter(torch.randn(2, 20)), nn.Parameter(torch.randn(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapted = nn.functional.embedding(x, self.down.T) @ self.up.T
        result: torch.Tensor = self.linear(self.table(x) + adapted * 0.5)
        return result.relu()


def test_tables_become_one() -> None:
    torch.manual_seed(0)
    model, inputs = Table().eval(), (torch.tensor([[0, 3, 19], [7, 7, 1]]),)
    result = foldproof.fuse(model, inputs)
    assert dict(result.operators_after) == {"aten.embedding.default": 1, "aten.relu.default": 1}
    assert result.verdict.kind is Kind.PROVED and result.bytes_after < result.bytes_before
    every = (torch.arange(20).reshape(2, 10),)
    shapes = ({1: Dim("n", min=2)},)
    result = foldproof.fuse(model, inputs, dynamic_shapes=shapes)
    assert largest_error([model(*every)], run(result.program, every)) < 2e-6  # type: ignore[arg-type]


def test_a_table_that_would_grow_stays() -> None:
    model = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 16)).eval()
    [declined] = foldproof.explain(model, (torch.tensor([[1, 2]]),))
    assert "more bytes of weights" in declined.reason


def test_a_table_that_is_a_head_too_stays() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(200, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.linear(self.table(x)).relu(), self.table.weight)

    [declined] = foldproof.explain(Tied().eval(), (torch.tensor([1, 2]),))
    assert "other operators read the old ones" in declined.reason


class Branches(nn.Module):
    """Convolutions of one value, each with a normalisation: of 2^15 pairs of weights, some cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(64, 512, 1, bias=False), nn.BatchNorm2d(512)) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> Any:
        first, second = (branch(x) for branch in self.branches)
        return first + second


@pytest.mark.parametrize("seed", range(2))
def test_branches_whose_weights_cancel(seed: int) -> None:
    """The sum of two folded weights, each rounded, differs from that of the original ones by more than its rounding."""
    torch.manual_seed(seed)
    model = examples.lively(Branches())
    result = foldproof.fuse(model, (torch.randn(1, 64, 2, 2),))
    assert not result.declined
    assert count_linear(result.operators_after) == sum(result.operators_after.values()) == 1
