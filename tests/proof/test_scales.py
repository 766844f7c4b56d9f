"""Numbers that only one program computes with tell at what scale of inputs the programs may differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof import Kind, prove

Function = Callable[[Tensor], Tensor]

# Pairs that small inputs don't tell apart.
DIFFERENT: dict[str, tuple[Function, Function]] = {
    "relu, relu6": (F.relu, F.relu6),
    "another limit": (F.hardtanh, lambda x: x.clamp(-1, 2)),
    "a far limit": (F.relu, lambda x: x.clamp(0, 1e4)),
    "a piece of hardswish": (F.hardswish, lambda x: x * 0.5 + x * x / 6),
    "a choice none makes here": (lambda x: torch.where(x > 3, x * 2, x), lambda x: x),
    "gelu and its approximation": (F.gelu, lambda x: F.gelu(x, approximate="tanh")),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_small_inputs_do_not_hide_a_difference(name: str) -> None:
    first, second = DIFFERENT[name]
    x = 0.01 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = prove(first, second, (x,))
    assert found.kind is Kind.REFUTED, str(found)
    assert found.witness is not None
    (at,) = found.witness.inputs
    assert not torch.allclose(first(at), second(at), rtol=1e-5, atol=1e-7)


def test_an_epsilon_shows_where_inputs_are_small() -> None:
    found = prove(lambda x: F.layer_norm(3 * x, (5,)), lambda x: F.layer_norm(x, (5,)), (torch.randn(4, 5),))
    assert found.kind is Kind.REFUTED, str(found)


def test_a_rounded_number_is_rounding() -> None:
    """As compilers write a constant in the dtype of what it is used with."""
    found = prove(
        lambda x: x / (x * x + 1e-5).sqrt(),
        lambda x: x / (x * x + float(torch.tensor(1e-5))).sqrt(),
        (torch.randn(4, 5),),
    )
    assert found.kind is Kind.ROUNDING, str(found)
