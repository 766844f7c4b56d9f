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
