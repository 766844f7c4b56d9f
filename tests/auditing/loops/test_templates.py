"""Products of matrices that Inductor writes from templates, with weights in blocks and functions of each element."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import mkldnn_lowerings

from foldproof.auditing.loops.templates import Templates
from foldproof.verdict import Kind
from zoo.lowered import Function, loop_steps

CHOSEN = {"max_autotune": True, "max_autotune_gemm_backends": "CPP"}
FROZEN = {**CHOSEN, "freezing": True}


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The templates that were recorded."""
    found: list[Any] = []
    record = Templates.record

    def watched(self: Templates, buffer: Any, *args: Any) -> list[str]:
        found.append(buffer.template)
        return record(self, buffer, *args)

    monkeypatch.setattr(Templates, "record", watched)
    return found


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Sum(nn.Module):
    """A linear map whose result is added to another one's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 20), nn.Linear(32, 20, bias=False)

    def forward(self, x: Tensor) -> Any:
        return (self.first(x) + self.second(x.sin())).relu()


MODELS = {
    "an activation": (nn.Sequential(nn.Linear(32, 20), nn.GELU()), drawn(16, 32)),
    "a sum": (Sum(), drawn(16, 32)),
    "half precision": (nn.Sequential(nn.Linear(32, 32), nn.SiLU()).bfloat16(), drawn(16, 32).bfloat16()),
}


@pytest.mark.parametrize("name", MODELS)
def test_packed_weights_are_those_of_the_graph(name: str, used: list[Any]) -> None:
    model, x = MODELS[name]
    steps = loop_steps(model.eval(), [x], FROZEN)
    assert used
    assert {name: step.verdict.kind for name, step in steps.items()} == dict.fromkeys(steps, Kind.PROVED)
    claim = steps["lowering"].verdict.claim
    assert claim is not None and claim.all_parameters


def test_batches_of_products(used: list[Any]) -> None:
    steps = loop_steps(Function(lambda x, y: torch.bmm(x, y).exp()), [drawn(4, 32, 24), drawn(4, 24, 32)], CHOSEN)
    assert used
    assert {name: step.verdict.kind for name, step in steps.items()} == dict.fromkeys(steps, Kind.PROVED)


def test_a_function_that_is_added_twice_is_refuted() -> None:
    create = mkldnn_lowerings.create_epilogue_with_attr

    def twice(buffer: Any, attr: str, **options: Any) -> Any:
        made = create(buffer, attr, **options)
        once = made.inner_fn
        object.__setattr__(made, "inner_fn", lambda i: once(i) + once(i) if attr == "swish" else once(i))
        return made

    model, x = MODELS["half precision"]
    with mock.patch.object(mkldnn_lowerings, "create_epilogue_with_attr", twice):
        wrong = loop_steps(model.eval(), [x], FROZEN)["lowering"]
    assert wrong.verdict.kind is Kind.REFUTED
    assert wrong.loop is not None and "_frozen_param" in wrong.loop.lines[0]


def test_a_weight_whose_order_is_not_known_is_not_guessed() -> None:
    """Of a weight of ones, the matrix and its transpose are the same bits."""
    model = nn.Linear(16, 16)
    nn.init.ones_(model.weight)
    verdict = loop_steps(model.eval(), [drawn(8, 16)], FROZEN)["lowering"].verdict
    assert verdict.kind is Kind.UNDECIDED and "packed" in verdict.reason
