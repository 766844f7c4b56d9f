"""A thin sample of docs/lowering.md: operators of PyTorch's operator database are proved down to their loops."""

from __future__ import annotations

import pytest
from torch.testing._internal.common_methods_invocations import op_db

from zoo.lowered_operators import rows

OPERATORS = ("argmin", "cat", "gather", "softmax", "sort", "nn.functional.max_pool2d")


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_proved_down_to_its_loops(name: str) -> None:
    operator = next(o for o in op_db if o.name == name)
    judged = [row for row in rows(operator) if row["why"] != "all outputs are empty"]
    assert judged and not [row for row in judged if row["kind"] != "PROVED"]
