"""Names of operators in text."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from foldproof.graph.text import operator_name


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (torch.ops.aten.relu.default, "aten.relu.default"),
        (torch.relu, "torch.relu"),
        (torch.nn.functional.relu, "torch.nn.functional.relu"),
        (operator.add, "_operator.add"),
        (operator_name, "foldproof.graph.text.operator_name"),
        (lambda x: x, f"{__name__}.<lambda>"),
        (functools.partial(operator.add, 1), "partial add"),
        (torch.nn.Parameter, "torch.nn.parameter.Parameter"),
    ],
    ids=["operator", "torch", "functional", "builtin", "own", "lambda", "partial", "class"],
)
def test_names_have_no_addresses(target: Callable[..., Any], name: str) -> None:
    node = fx.Graph().create_node("call_function", target, name="called")
    assert operator_name(node) == name
